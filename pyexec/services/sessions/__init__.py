"""Interpreter sessions: open them, run cells in them, adopt and close them. See docs/design/sessions.md."""
