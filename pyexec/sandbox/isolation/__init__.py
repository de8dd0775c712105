"""The isolation check."""
