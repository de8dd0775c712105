"""The container engine, on aiodocker. See docs/design/docker-adapter.md."""
