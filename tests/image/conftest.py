"""The server's image, built once from this checkout, and the commands of docs/deployment.md to run it."""

from collections.abc import Iterator

import pytest

from tests.support.deployment import Page
from tests.support.server_image import built_image


@pytest.fixture(scope="session")
def built() -> Iterator[str]:
    """Build the server's image; return its name."""
    with built_image() as name:
        yield name


@pytest.fixture
def page(built: str, image: str) -> Iterator[Page]:
    """Provide the commands of docs/deployment.md; remove their containers at the end."""
    page = Page.of(built, image)
    try:
        yield page
    finally:
        page.clear()
