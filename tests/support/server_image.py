"""The server's image, built from this checkout."""

import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.paths import ROOT


@contextmanager
def built_image() -> Iterator[str]:
    """Build the image; yield its name. Remove it at the end."""
    name = f"pyexec-test-server:{secrets.token_hex(4)}"
    try:
        command = [sys.executable, str(ROOT / "dev" / "server_image.py"), name, "--no-sizes"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        yield name
    finally:
        subprocess.run(["docker", "rmi", "--force", name], check=True, stdout=subprocess.DEVNULL)
