"""The Consul binary for the tests and `make cluster`: from PATH, otherwise from Debian's package, unpacked in .run.

`python3 dev/consul.py` prints the path of the binary."""

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
_RELEASE = "bullseye"  # the last Debian release with a Consul package
_SHA256 = "e4e888bba104daba1d9161f49bfc52649a7e4efd45b1a7ead5bc54f2cb9c89d9"
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_MANUALLY = "install Consul manually, with `consul` on PATH"


def ensure() -> Path:
    """Return the path of a Consul binary; download it if necessary."""
    if found := shutil.which("consul"):
        return Path(found)
    if not _BINARY.exists():
        _unpack(_download())
    return _BINARY


def _download() -> Path:
    """Download the package from the machine's Debian mirror, with separate apt lists: the machine's stay unchanged."""
    if platform.machine() != "x86_64" or shutil.which("apt-get") is None:
        raise SetupError(f"Cannot download Consul: this needs x86_64 and apt-get; {_MANUALLY}.")
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
        "APT::Sandbox::User": _sandbox_user(),
    }
    apt = ["apt-get", *(f"-o{name}={value}" for name, value in options.items())]
    run([*apt, "update"], f"download the package list of Debian {_RELEASE}")
    # `apt-get download` always writes to the current directory.
    run(["env", f"--chdir={downloads}", *apt, "download", "consul"], "download Consul")
    packages = list(downloads.glob("consul_*.deb"))
    if len(packages) != 1:
        raise SetupError(f"Cannot find the downloaded Consul package in {downloads}: {_MANUALLY}.")
    return packages[0]


def _unpack(package: Path) -> None:
    digest = hashlib.sha256(package.read_bytes()).hexdigest()
    if digest != _SHA256:
        raise SetupError(f"Checksum mismatch of {package}: the SHA-256 is {digest}; expected {_SHA256}.")
    # Unpack elsewhere first: an interrupted run must not leave a partial binary in place.
    unpacked = _HOME / "unpacked"
    run(["dpkg", "-x", str(package), str(unpacked)], "unpack Consul")
    _BINARY.parent.mkdir(parents=True, exist_ok=True)
    (unpacked / "usr" / "bin" / "consul").rename(_BINARY)
    shutil.rmtree(unpacked)
    shutil.rmtree(_HOME / "apt")


def _mirror() -> str:
    """Return the address of the Debian mirror that the machine's apt uses."""
    listing = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(ORIGIN)", "Created-By: Packages"]
    targets = subprocess.run(listing, capture_output=True, text=True, check=True).stdout.splitlines()
    for fields in map(str.split, targets):
        if fields[1:] == ["Debian"] and "security" not in fields[0]:
            return fields[0]
    raise SetupError(f"Cannot download Consul: apt has no Debian mirror configured; {_MANUALLY}.")


def _sandbox_user() -> str:
    """Return the user that apt downloads as. Its default user `_apt` may not be able to write to this folder."""
    return "root" if os.geteuid() == 0 else ""


def main() -> int:
    prepare()
    print(ensure())
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
