"""MCP at `/mcp`: the endpoint, the bridge to the SDK's ASGI application, and the executor over the services."""
