"""The OpenAPI document, built from the handlers, the types that they name, and this server's settings."""
