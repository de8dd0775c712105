"""docs/configuration.md is what the settings say, and what the server itself prints."""

import re
import subprocess
import sys
from pathlib import Path

from tests.support.server import PROGRAM

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "configuration.md").read_text()


def printed(*command: str | Path) -> str:
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def test_the_page_is_of_today() -> None:
    assert printed(sys.executable, "dev/configuration.py", "--print") == PAGE, "`make docs` writes it anew"


def test_help_lists_the_same_settings_under_the_same_titles() -> None:
    help_text = printed(PROGRAM, "--help")
    assert re.findall(r"^  (PYEXEC_\w+) ", help_text, re.M) == re.findall(r"^\| `(PYEXEC_\w+)`", PAGE, re.M)
    assert re.findall(r"^(\w.*):$", help_text, re.M) == re.findall(r"^## (.*)$", PAGE, re.M)
