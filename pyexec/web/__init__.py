"""HTTP: parsing requests, calling services, writing answers."""
