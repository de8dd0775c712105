"""Consul for the tests and for a cluster on one machine: the one on PATH, else Debian's own, unpacked in .run.

`python3 dev/consul.py` prints where its binary is."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from console import SetupError, run_main
from subprocesses import RUN_DIR, prepare, run

_HOME = RUN_DIR / "consul"
_BINARY = _HOME / "usr" / "bin" / "consul"
_RELEASE = "bullseye"  # the last Debian with a package of it
_SHA256 = "e4e888bba104daba1d9161f49bfc52649a7e4efd45b1a7ead5bc54f2cb9c89d9"
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_BY_HAND = "install Consul by hand, so that `consul` is on PATH"


def ensure() -> Path:
    """The path of a Consul binary, fetched the first time."""
    if found := shutil.which("consul"):
        return Path(found)
    if not _BINARY.exists():
        _unpack(_fetched())
    return _BINARY


def _fetched() -> Path:
    """The package, from the mirror that this machine's apt uses, with lists of its own: its sources stay as
    they are."""
    if platform.machine() != "x86_64" or shutil.which("apt-get") is None:
        raise SetupError(f"Cannot fetch Consul on this machine: {_BY_HAND}.")
    downloads = _HOME / "apt"
    shutil.rmtree(downloads, ignore_errors=True)
    for folder in ("lists/partial", "cache/archives/partial"):
        (downloads / folder).mkdir(parents=True, exist_ok=True)
    sources = downloads / "sources.list"
    sources.write_text(f"deb [signed-by={_KEYRING}] {_mirror()} {_RELEASE} main\n")
    options = {
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": downloads / "lists",
        "Dir::Cache": downloads / "cache",
        "Acquire::Languages": "none",
        "APT::Sandbox::User": _user(),
    }
    apt = ["apt-get", *(f"-o{name}={value}" for name, value in options.items())]
    run([*apt, "update"], "fetch the list of packages that has Consul")
    # `download` knows no other target than the folder it is called in.
    run(["env", f"--chdir={downloads}", *apt, "download", "consul"], "fetch Consul")
    packages = list(downloads.glob("consul_*.deb"))
    if len(packages) != 1:
        raise SetupError(f"Cannot find the Consul package that apt fetched: {_BY_HAND}.")
    return packages[0]


def _unpack(package: Path) -> None:
    digest = hashlib.sha256(package.read_bytes()).hexdigest()
    if digest != _SHA256:
        raise SetupError(
            f"{package} is not the package it should be: its SHA-256 is {digest}, not {_SHA256}."
        )
    # Unpacked beside its place first, so that an interrupted unpacking is never taken for a whole one.
    unpacked = _HOME / "unpacked"
    run(["dpkg", "-x", str(package), str(unpacked)], "unpack Consul")
    _BINARY.parent.mkdir(parents=True, exist_ok=True)
    (unpacked / "usr" / "bin" / "consul").rename(_BINARY)
    shutil.rmtree(unpacked)
    shutil.rmtree(_HOME / "apt")


def _mirror() -> str:
    """The address of the Debian mirror that this machine's own apt uses."""
    listing = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(ORIGIN)", "Created-By: Packages"]
    targets = subprocess.run(listing, capture_output=True, text=True, check=True).stdout.splitlines()
    for fields in map(str.split, targets):
        if fields[1:] == ["Debian"] and "security" not in fields[0]:
            return fields[0]
    raise SetupError(f"Cannot fetch Consul: apt knows no Debian mirror here; {_BY_HAND}.")


def _user() -> str:
    """apt gives up root for a user that may not read this folder; without root it has nothing to give up."""
    return "root" if os.geteuid() == 0 else ""


def main() -> int:
    prepare()
    print(ensure())
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
