"""The Model Context Protocol (MCP) for python-executor: tools and resources over an `Executor`, by the official SDK.

The server and the command line provide the executor. See docs/design/mcp.md."""
