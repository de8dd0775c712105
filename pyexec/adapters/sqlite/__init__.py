"""The embedded event log."""
