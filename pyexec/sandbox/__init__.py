"""Throw-away sandboxes: the program inside one, how to talk to it, and how to keep some warm."""
