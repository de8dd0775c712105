"""Sandboxes started ahead of demand."""
