"""Put the parts of a server together."""
