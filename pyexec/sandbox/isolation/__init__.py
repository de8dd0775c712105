"""The isolation check. See docs/design/isolation-check.md."""
