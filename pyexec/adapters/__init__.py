"""Implementations of the ports. Each vendor's library is imported in one folder only."""
