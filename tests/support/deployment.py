"""Commands of docs/deployment.md and README.md, with container names and a port for one test."""

import re
import secrets
import subprocess
from typing import Self

from attrs import frozen

from tests.support.consul import free_ports
from tests.support.paths import ROOT

PAGE = "docs/deployment.md"
SERVER = "python-executor:0.1.0"
DAEMON = "docker:28-dind"
PRIVILEGED = "--privileged"
# Replaces `--privileged`, which this machine may not allow: all capabilities except SYS_RESOURCE, and the machine's own
# dockerd, so that no image must be pulled.
RIGHTS = (
    "--cap-add=ALL --cap-drop=SYS_RESOURCE --security-opt seccomp=unconfined --security-opt apparmor=unconfined "
    "--security-opt systempaths=unconfined --cgroupns=host --volume /sys/fs/cgroup:/sys/fs/cgroup:rw "
    "--volume /usr:/usr:ro --volume /etc/alternatives:/etc/alternatives:ro"
)


@frozen
class Page:
    """The blocks of the page. `name` is the name of the server's container, and the prefix of all other names."""

    name: str
    url: str
    image: str
    sandbox_image: str

    @classmethod
    def of(cls, image: str, sandbox_image: str) -> Self:
        port = free_ports(["http"])["http"]
        return cls(f"pyexec-test-{secrets.token_hex(4)}", f"http://localhost:{port}", image, sandbox_image)

    def block(self, heading: str, page: str = PAGE) -> str:
        """Return the commands under a heading of a page, with names of this test's own."""
        found = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", (ROOT / page).read_text(), re.M | re.S)
        assert found is not None, heading
        (text,) = re.findall(r"^```sh\n(.*?)^```$", found[1], re.M | re.S)
        text = re.sub(r"(?<= )pyexec(?=[\s-])", self.name, text)
        port = self.url.rpartition(":")[2]
        replaced = {
            SERVER: f"--env PYEXEC_DEFAULT_IMAGE={self.sandbox_image} --env PYEXEC_FIREWALL=off {self.image}",
            DAEMON: self.sandbox_image,
            PRIVILEGED: RIGHTS,
            "--publish 8080:8080": f"--publish 127.0.0.1:{port}:8080",
            "--publish 127.0.0.1:8080:8080": f"--publish 127.0.0.1:{port}:8080",
            "http://localhost:8080": self.url,
        }
        for written, real in replaced.items():
            text = text.replace(written, real)
        return text

    def run(self, commands: str) -> str:
        """Run shell commands; return their output. Fail if one of them fails."""
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", commands], check=True, stdout=subprocess.PIPE, text=True
        )
        return done.stdout

    def inspect(self, what: str) -> str:
        """Return one field of `docker inspect` for the server's container."""
        return self.run(f"docker inspect --format '{{{{{what}}}}}' {self.name}").strip()

    def clear(self) -> None:
        """Remove everything that the commands have created."""
        for kind, remove in (("ps --all", "rm --force --volumes"), ("volume ls", "volume rm")):
            self.run(
                f"docker {kind} --quiet --filter name={self.name} | xargs --no-run-if-empty docker {remove}"
            )
