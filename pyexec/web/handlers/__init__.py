"""Endpoints, one function each. A function's docstring is its description in the OpenAPI document."""
