"""HTTP API: parse requests, call the services, write responses."""
