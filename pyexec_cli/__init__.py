"""The command line program `python-executor`."""
