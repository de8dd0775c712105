"""Run `python-executor-server --check`, and read its results."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from attrs import frozen

from tests.support.consul import free_ports
from tests.support.server import PROGRAM

CHECK_SECONDS = 120


@frozen
class Checked:
    """The output and the exit code of `--check`."""

    exit_code: int
    checks: list[dict[str, str]]

    def __call__(self, name: str, verdict: str | None = None) -> list[str]:
        """Return the texts of one check with this verdict."""
        return [
            check["text"]
            for check in self.checks
            if check["check"] == name and verdict in (None, check["verdict"])
        ]

    @property
    def failed(self) -> set[str]:
        return {check["check"] for check in self.checks if check["verdict"] == "failed"}


def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYEXEC_")}
    environment |= {f"PYEXEC_{name.upper()}": value for name, value in settings.items()}
    return subprocess.run(
        [PROGRAM, "--check", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=CHECK_SECONDS,
        check=False,
    )


def check(image: str, data_dir: Path, **settings: str) -> Checked:
    port = str(free_ports(["server"])["server"])
    own = {"port": port, "data_dir": str(data_dir), "default_image": image, **settings}
    done = run("--json", **own)
    assert done.stderr == ""
    document: dict[str, Any] = json.loads(done.stdout)
    assert document["ok"] is (done.returncode == 0)
    return Checked(done.returncode, document["checks"])
