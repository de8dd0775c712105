"""The server's image, built from this checkout."""

import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

ROOT = Path(__file__).parents[2]


@frozen
class Built:
    """The image's name, and the output of `make image`."""

    name: str
    output: str


@contextmanager
def built_image() -> Iterator[Built]:
    """Build the image; remove it at the end."""
    name = f"pyexec-test-server:{secrets.token_hex(4)}"
    try:
        command = [sys.executable, str(ROOT / "dev" / "server_image.py"), name]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        yield Built(name, output)
    finally:
        subprocess.run(["docker", "rmi", "--force", name], check=True, stdout=subprocess.DEVNULL)
