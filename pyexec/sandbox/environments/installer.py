"""Where the installer lies that setups use."""

import sys
from pathlib import Path

import uv

STATIC_UV = Path(sys.prefix) / "share" / "python-executor" / "uv"
"""Put there when the server is installed. The one that the package `uv` brings needs this machine's C library."""


def installed_uv() -> Path:
    """A static uv where there is one, else that of the package; raises `FileNotFoundError` without either."""
    return STATIC_UV if STATIC_UV.exists() else Path(uv.find_uv_bin())
