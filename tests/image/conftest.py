"""The server's image, built once from this checkout, and the commands of docs/deployment.md to run it."""

import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import frozen

from tests.support.deployment import Page

ROOT = Path(__file__).parents[2]


@frozen
class Built:
    """The image's name, and the output of `make image`."""

    name: str
    output: str


@pytest.fixture(scope="session")
def built() -> Iterator[Built]:
    name = f"pyexec-test-server:{secrets.token_hex(4)}"
    try:
        command = [sys.executable, str(ROOT / "dev" / "server_image.py"), name]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        yield Built(name, output)
    finally:
        subprocess.run(["docker", "rmi", "--force", name], check=True, stdout=subprocess.DEVNULL)


@pytest.fixture
def page(built: Built, image: str) -> Iterator[Page]:
    """Provide the commands of docs/deployment.md; remove their containers at the end."""
    page = Page.of(built.name, image)
    try:
        yield page
    finally:
        page.clear()
