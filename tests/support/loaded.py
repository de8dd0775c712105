"""Loads the modules of the server and of the command line, before processes are forked."""

import gc
import importlib
import os

import anyio

# aiohttp loads this file twice when it is imported, which takes a tenth of a second. Few tests need it.
os.environ["SSL_CERT_FILE"] = os.devnull
for module in ("pyexec.app", "pyexec.server", "pyexec_cli.main"):
    importlib.import_module(module)
for module, _ in importlib.import_module("pyexec_cli.commands").COMMANDS.values():
    if module != "mcp":  # its modules are slow to load and rarely used
        importlib.import_module(f"pyexec_cli.{module}")
anyio.run(anyio.sleep, 0)  # loads the event loop
gc.freeze()
