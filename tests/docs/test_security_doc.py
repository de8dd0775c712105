"""docs/security.md names tests; each is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMES = re.findall(r"`(\w+/test_\w+\.py)(?:::(test_\w+))?`", (ROOT / "docs" / "security.md").read_text())


def test_the_page_names_tests() -> None:
    assert len(NAMES) > 20


@pytest.mark.parametrize(("path", "function"), NAMES)
def test_every_test_on_the_page_is_there(path: str, function: str) -> None:
    source = (ROOT / "tests" / path).read_text()
    assert re.search(rf"^(async )?def {function or 'test_'}", source, re.M)
