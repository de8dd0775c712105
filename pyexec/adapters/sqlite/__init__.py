"""The embedded event log, on SQLite."""
