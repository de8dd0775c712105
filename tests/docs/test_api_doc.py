"""docs/api.md as its reader meets it: every command runs, in order, and prints what the page shows."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

from pyexec.domain.events import FailureType
from pyexec.web.routes import ROUTES
from tests.support.server import Server

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.M | re.S)
END = "THE END OF THE BLOCK"


def printed_by_all(url: str, directory: Path) -> list[str]:
    """What each block of commands prints; they share one bash."""
    commands = [text for language, text in BLOCKS if language == "bash"]
    program = "".join(f"{text}\necho\necho {END}\n" for text in commands).replace(
        "http://localhost:8080", url
    )
    bash = ["bash", "-e", "-o", "pipefail", "-c", program]
    done = subprocess.run(bash, cwd=directory, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.split(f"{END}\n")[: len(commands)]


def alike(value: Any, name: str = "") -> Any:
    """A document without what differs from run to run."""
    if isinstance(value, dict):
        return {key: alike(item, key) for key, item in value.items()}
    if isinstance(value, list):
        return [alike(item) for item in value]
    varies = name.endswith(("_id", "_at", "_ms", "_seconds", "_bytes")) or name in ("queue", "setup", "run")
    return type(value).__name__ if varies else value


def documents(text: str) -> list[Any]:
    """JSON documents, one a line or one after the other."""
    found, at = [], 0
    while at < len(text.rstrip()):
        document, at = json.JSONDecoder().raw_decode(text, at)
        found.append(alike(document))
        at += len(text[at:]) - len(text[at:].lstrip())
    return found


def test_every_command_prints_what_the_page_shows(server: Server, tmp_path: Path) -> None:
    printed = iter(printed_by_all(server.url, tmp_path))
    last = ""
    for language, text in BLOCKS:
        if language == "bash":
            assert last.strip() == "", "the page does not show what this prints"
            last = next(printed)
        elif language == "json":
            assert documents(last.lstrip()) == documents(text)
            last = ""
        else:
            assert last.strip() == text.strip()
            last = ""
    assert last.strip() == ""


def test_every_endpoint_and_every_failure_is_on_the_page() -> None:
    for _, path, _ in ROUTES:
        short = re.sub(":[^}]*}", "}", path)
        assert short in PAGE or short.replace("/api/v1/executions/{id}", "…") in PAGE
    assert [failure for failure in FailureType if f"`{failure}`" not in PAGE] == []
