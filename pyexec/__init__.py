"""python-executor: runs Python code nobody has vetted in throw-away Docker sandboxes."""

__version__ = "0.1.0"
