"""The use cases of the product, written in terms of the domain and the ports."""
