"""Blob stores in a local directory and in object storage."""
