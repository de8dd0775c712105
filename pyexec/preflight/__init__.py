"""Check a machine and its settings before a server starts: `--check`."""
