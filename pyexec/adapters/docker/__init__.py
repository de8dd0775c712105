"""The container engine, through aiodocker."""
