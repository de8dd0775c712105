"""The Debian (or Ubuntu) underneath: its packages, and a root file system of its own release."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

from console import SetupError, print_step
from subprocesses import run

_BROWSERS = ("chromium", "google-chrome", "google-chrome-stable", "chromium-browser")


def install(packages: list[str], purpose: str) -> None:
    """Install packages with apt-get, without what they merely recommend."""
    wanted = " ".join(packages)
    if shutil.which("apt-get") is None:
        raise SetupError(
            f"Cannot {purpose}: only Debian and Ubuntu are set up by themselves; install {wanted} by hand."
        )
    if os.geteuid() != 0:
        raise SetupError(f"Cannot {purpose} without root: run this as root, or install {wanted} first.")
    print_step(f"Installing {wanted} with apt-get")
    # A machine that has just booted may be running its own upgrades: wait for their lock.
    apt = ["apt-get", "-y", "-o", "DPkg::Lock::Timeout=300"]
    installation = [*apt, "install", "--no-install-recommends", *packages]
    quietly = {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        run(installation, purpose, quietly)
    except SetupError:  # the lists of packages are missing, or too old
        run([*apt, "update"], "fetch the lists of packages")
        run(installation, purpose, quietly)


def codename() -> str:
    """The release this machine runs, `bookworm` for example."""
    name = platform.freedesktop_os_release().get("VERSION_CODENAME")
    if not name:
        raise SetupError(
            "Cannot tell which Debian or Ubuntu release this is: /etc/os-release has no VERSION_CODENAME."
        )
    return name


def build_root(target: Path, packages: list[str]) -> None:
    """Bootstrap this machine's own release, from its own mirror, into the empty folder `target`."""
    if shutil.which("debootstrap") is None:
        install(["debootstrap"], "build a Python image")
    # In a mount namespace of its own nothing that debootstrap mounts can outlive it.
    command = ["unshare", "--mount", "debootstrap", "--variant=minbase", f"--include={','.join(packages)}"]
    run([*command, codename(), str(target), *_mirror()], "build a Python image")


def _mirror() -> list[str]:
    """The address this machine's own apt uses for its release; none leaves the choice to debootstrap."""
    listing = [
        "apt-get",
        "indextargets",
        "--format",
        "$(REPO_URI) $(CODENAME) $(COMPONENT)",
        "Created-By: Packages",
    ]
    targets = subprocess.run(listing, capture_output=True, text=True, check=True).stdout.splitlines()
    for fields in map(str.split, targets):
        if fields[1:] == [codename(), "main"] and fields[0].startswith(("http:", "https:", "file:")):
            return fields[:1]
    return []


def ensure_browser() -> Path:
    """The path of a Chromium, installed the first time."""
    found = _find_browser()
    if found is None:
        install(["chromium"], "test the API's pages")
        found = _find_browser()
    if found is None:
        raise SetupError("Cannot test the API's pages: the package chromium has brought no browser.")
    return found


def _find_browser() -> Path | None:
    return next((Path(found) for name in _BROWSERS if (found := shutil.which(name))), None)
