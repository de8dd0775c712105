"""Adapters for Consul: event log, membership and blob store. See docs/design/consul-adapter.md."""
