"""The event log, membership and blobs in Consul."""
