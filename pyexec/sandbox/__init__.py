"""Sandboxes: the protocol with the guest, the pool, environments, and the isolation check."""
