"""Keep sandboxes ready before requests arrive. See docs/design/pool.md."""
