"""A browser for the tests of the API's pages: the one on PATH, else Debian's Chromium."""

from __future__ import annotations

import shutil
from pathlib import Path

import debian
from report import Failure

_NAMES = ("chromium", "google-chrome", "google-chrome-stable", "chromium-browser")


def ensure() -> Path:
    """The path of a Chromium, installed the first time."""
    found = _find()
    if found is None:
        debian.install(["chromium"], "test the API's pages")
        found = _find()
    if found is None:
        raise Failure("Cannot test the API's pages: the package chromium has brought no browser.")
    return found


def _find() -> Path | None:
    return next((Path(found) for name in _NAMES if (found := shutil.which(name))), None)
