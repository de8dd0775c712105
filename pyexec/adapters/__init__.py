"""The outside world behind the ports: the only places that import a vendor's library."""
