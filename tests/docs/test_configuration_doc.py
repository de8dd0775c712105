"""Check that docs/configuration.md matches the settings and the output of `--help`."""

import re
import subprocess
import sys
from pathlib import Path

from tests.support.paths import ROOT
from tests.support.server import PROGRAM

PAGE = (ROOT / "docs" / "configuration.md").read_text()


def printed(*command: str | Path) -> str:
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def test_the_page_is_up_to_date() -> None:
    assert printed(sys.executable, "dev/configuration.py", "--print") == PAGE, (
        "run `make docs` to update the page"
    )


def test_help_lists_the_same_settings_under_the_same_titles() -> None:
    help_text = printed(PROGRAM, "--help")
    assert re.findall(r"^  (PYEXEC_\w+) ", help_text, re.M) == re.findall(r"^\| `(PYEXEC_\w+)`", PAGE, re.M)
    assert re.findall(r"^(\w.*):$", help_text, re.M) == re.findall(r"^## (.*)$", PAGE, re.M)
