"""Run every command of docs/api.md, in order, and compare its output with the page."""

import json
import os
import re
from pathlib import Path
from typing import Any

from pyexec.domain.events import FailureType
from pyexec.web.application import ROUTES
from tests.docs.blocks import blocks, text_of
from tests.docs.shell import shell
from tests.support.server import Server

PAGE = "docs/api.md"


def alike(value: Any, name: str = "") -> Any:
    """Return a JSON value with placeholders for everything that varies between runs."""
    if isinstance(value, dict):
        return {key: alike(item, key) for key, item in value.items()}
    if isinstance(value, list):
        return [alike(item) for item in value]
    varies = name.endswith(("_id", "_at", "_ms", "_seconds", "_bytes")) or name in ("queue", "setup", "run")
    return type(value).__name__ if varies else value


def documents(text: str) -> list[Any]:
    """Parse a sequence of JSON documents, with or without line breaks between them."""
    found, at = [], 0
    while at < len(text.rstrip()):
        document, at = json.JSONDecoder().raw_decode(text, at)
        found.append(alike(document))
        at += len(text[at:]) - len(text[at:].lstrip())
    return found


def test_every_command_prints_what_the_page_shows(server: Server, tmp_path: Path) -> None:
    last = ""
    with shell(tmp_path, os.environ, {"http://localhost:8080": server.url}) as bash:
        for block in blocks(PAGE):
            if block.language == "bash":
                assert last.strip() == "", "the page does not show the output of this block"
                last = bash.run(block.text)
            elif block.language == "json":
                assert documents(last.lstrip()) == documents(block.text)
                last = ""
            else:
                assert last.strip() == block.text.strip()
                last = ""
    assert last.strip() == ""


def test_every_endpoint_and_every_failure_is_on_the_page() -> None:
    page = text_of(PAGE)
    for _, path, _ in ROUTES:
        short = re.sub(":[^}]*}", "}", path)
        assert short in page or short.replace("/api/v1/executions/{id}", "…") in page
    assert [failure for failure in FailureType if f"`{failure}`" not in page] == []
