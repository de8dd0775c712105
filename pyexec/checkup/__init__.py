"""`python-executor-server --check`: whether a server with these settings could work here, and what is to be mended."""
