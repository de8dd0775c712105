"""Loads the modules of the server and of the command line, before processes are forked."""

import gc
import importlib

import anyio

from pyexec import app as server_program  # noqa: F401
from pyexec_cli import commands
from pyexec_cli import main as command_line  # noqa: F401

importlib.import_module("pyexec.server")
for module, _ in commands._COMMANDS.values():
    if module != "mcp":  # its modules are slow to load and rarely used
        importlib.import_module(f"pyexec_cli.{module}")
anyio.run(anyio.sleep, 0)  # loads the event loop
gc.freeze()
