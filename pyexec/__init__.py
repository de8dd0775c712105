"""python-executor: run untrusted Python code in isolated Docker sandboxes."""

__version__ = "0.1.0"
