"""The server's image, built once from this checkout, and what is run of it."""

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
    """The image's name, and what `make image` printed."""

    name: str
    printed: str


@pytest.fixture(scope="session")
def built() -> Iterator[Built]:
    name = f"pyexec-test-server:{secrets.token_hex(4)}"
    try:
        making = [sys.executable, str(ROOT / "dev" / "server_image.py"), name]
        printed = subprocess.run(making, check=True, stdout=subprocess.PIPE, text=True).stdout
        yield Built(name, printed)
    finally:
        subprocess.run(["docker", "rmi", "--force", name], check=True, stdout=subprocess.DEVNULL)


@pytest.fixture
def page(built: Built, image: str) -> Iterator[Page]:
    """docs/deployment.md, whose containers are gone at the end."""
    page = Page.of(built.name, image)
    try:
        yield page
    finally:
        page.clear()
