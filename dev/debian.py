"""Debian and Ubuntu packages: installing them, and building a root file system of the machine's own release."""

from __future__ import annotations

import ctypes.util
import os
import platform
import shutil
import subprocess
from pathlib import Path

from console import SetupError, print_step
from subprocesses import run

_BROWSERS = ("chromium", "google-chrome", "google-chrome-stable", "chromium-browser")


def install(packages: list[str], purpose: str) -> None:
    """Install packages with apt-get, without recommended packages."""
    names = " ".join(packages)
    if shutil.which("apt-get") is None:
        raise SetupError(
            f"Cannot {purpose}: automatic installation needs Debian or Ubuntu; install {names} manually."
        )
    if os.geteuid() != 0:
        raise SetupError(f"Cannot {purpose} without root: run this as root, or install {names} first.")
    print_step(f"Installing {names} with apt-get")
    # Right after boot, automatic upgrades may hold the lock of dpkg.
    apt = ["apt-get", "-y", "-o", "DPkg::Lock::Timeout=300"]
    installation = [*apt, "install", "--no-install-recommends", *packages]
    noninteractive = {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        run(installation, purpose, noninteractive)
    except SetupError:  # the package lists may be missing or outdated
        run([*apt, "update"], "update the package lists")
        run(installation, purpose, noninteractive)


def ensure_test_programs() -> None:
    """Install missing programs that the tests need: Chromium (or Chrome), libatomic for Playwright's Node, and curl for
    the examples in the documentation."""
    present = {
        "chromium": any(map(shutil.which, _BROWSERS)),
        "libatomic1": ctypes.util.find_library("atomic") is not None,
        "curl": shutil.which("curl") is not None,
    }
    if missing := [package for package, is_present in present.items() if not is_present]:
        install(missing, "install the programs that the tests need")


def codename() -> str:
    """Return the code name of the machine's release, such as `bookworm`."""
    name = platform.freedesktop_os_release().get("VERSION_CODENAME")
    if not name:
        raise SetupError(
            "Cannot determine the Debian or Ubuntu release: /etc/os-release has no VERSION_CODENAME."
        )
    return name


def build_root(target: Path, packages: list[str]) -> None:
    """Bootstrap the machine's own release, from its own mirror, into the empty folder `target`."""
    if shutil.which("debootstrap") is None:
        install(["debootstrap"], "build a Python image")
    # A separate mount namespace, so that no mount of debootstrap's remains if it is interrupted.
    command = ["unshare", "--mount", "debootstrap", "--variant=minbase", f"--include={','.join(packages)}"]
    run([*command, codename(), str(target), *_mirror()], "build a Python image")


def _mirror() -> list[str]:
    """Return the mirror that apt uses for the release, or nothing: debootstrap then uses its default."""
    fields_wanted = "$(REPO_URI) $(CODENAME) $(COMPONENT)"
    listing = ["apt-get", "indextargets", "--format", fields_wanted, "Created-By: Packages"]
    targets = subprocess.run(listing, capture_output=True, text=True, check=True).stdout.splitlines()
    for fields in map(str.split, targets):
        if fields[1:] == [codename(), "main"] and fields[0].startswith(("http:", "https:", "file:")):
            return fields[:1]
    return []
