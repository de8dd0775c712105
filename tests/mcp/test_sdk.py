"""The MCP SDK without the package `cryptography`, as in the server's image. No server is needed."""

import subprocess
import sys

PROGRAM = """
import importlib.util, sys

find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "cryptography" else find(name, *rest)
from pyexec.mcp.sdk import loading_sdk

with loading_sdk():
    from pyexec.mcp.http import HttpApp
    from pyexec.mcp.stdio import serve_stdio
assert not [name for name in sys.modules if name.startswith("cryptography")]
print("loaded")
"""


def test_the_sdk_loads_without_cryptography() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], check=False, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("loaded\n", "")


def test_the_server_starts_without_the_sdk() -> None:
    wanted = "{'mcp', 'pydantic', 'jsonschema'}"
    program = f"import sys, pyexec.server, pyexec_cli.commands; print({wanted} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert done.stdout == "set()\n"
