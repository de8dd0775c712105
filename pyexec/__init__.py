"""python-executor: run untrusted Python code in single-use Docker sandboxes."""

__version__ = "0.1.0"
