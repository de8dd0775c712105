"""Blob stores on disk and in object storage."""
