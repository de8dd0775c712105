"""Let the MCP SDK be loaded without the package `cryptography`, which the server's image leaves out.

The SDK imports it to seal the state of requests that take several rounds. No tool here has such requests, and the
package with its own OpenSSL is larger than the rest of the SDK."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

_NAMES = {
    "cryptography": (),
    "cryptography.exceptions": ("InvalidTag",),
    "cryptography.hazmat": (),
    "cryptography.hazmat.primitives": (),
    "cryptography.hazmat.primitives.ciphers": (),
    "cryptography.hazmat.primitives.ciphers.aead": ("AESGCM",),
    "cryptography.hazmat.primitives.hashes": ("SHA256",),
    "cryptography.hazmat.primitives.kdf": (),
    "cryptography.hazmat.primitives.kdf.hkdf": ("HKDF",),
}
"""The modules that the SDK imports, and the names that it takes from them."""


class MissingPackage(Exception):
    """Raised for a use of `cryptography`, also where an exception class is expected."""

    def __init__(self, *_: object, **__: object) -> None:
        super().__init__("this needs the package cryptography, which is not installed")


@contextmanager
def loading_sdk() -> Iterator[None]:
    """Import the SDK inside this context. If `cryptography` is missing, its names are there, and fail when used."""
    if importlib.util.find_spec("cryptography") is not None:
        yield
        return
    for name, members in _NAMES.items():
        module = ModuleType(name)
        module.__path__ = []
        for member in members:
            setattr(module, member, type(member, (MissingPackage,), {}))
        sys.modules[name] = module
    try:
        yield
    finally:
        for name in _NAMES:
            del sys.modules[name]
