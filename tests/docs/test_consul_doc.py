"""Run every command of docs/consul.md, in order, and compare its output with the page."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.docs.blocks import blocks
from tests.docs.shell import Shell, shell
from tests.support.consul import ACL, MASTER, Agent, binary, dev_agent, durable_agent
from tests.support.paths import ROOT
from tests.support.server import PROGRAM, Server, running_server

PAGE = "docs/consul.md"


@contextmanager
def bash_of(directory: Path, agent: Agent, server: Server) -> Iterator[Shell]:
    """Start a bash in which the page's addresses are those of the test's Consul and server."""
    path = f"{binary().parent}:{PROGRAM.parent}:{os.environ['PATH']}"
    replaced = {
        "127.0.0.1:8083": agent.address,
        "http://127.0.0.1:8080": server.url,
        "$PWD/": f"{ROOT}/",
        "python3 dev/": f"python3 {ROOT}/dev/",
    }
    with shell(directory, {**os.environ, "PATH": path}, replaced) as bash:
        yield bash


VARYING = (
    (r"exe_[0-9a-f]{32}", "ID"),
    (r"rep_[0-9a-f]{16}", "REPLICA"),
    (r'"[0-9a-f]{64}"', '"CONTAINER"'),
    (r'"sha256:[0-9a-f]{64}"', '"IMAGE"'),
    (r'"(\w{4}:){11}\w{4}"|"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"', '"ENGINE"'),
    (r'"[0-9a-f]{16}"', '"NONCE"'),
    (r'"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"', '"MOMENT"'),
    (r'"cpu_seconds": [\d.e-]+', '"cpu_seconds": 0'),
    (r'"peak_memory_bytes": \d+', '"peak_memory_bytes": 0'),
    (r'"docker_image": "[^"]+"', '"docker_image": "IMAGE"'),
)


def comparable(text: str) -> list[object]:
    """Parse JSON lines, with placeholders for everything that varies between runs."""
    for pattern, word in VARYING:
        text = re.sub(pattern, word, text)
    return [json.loads(line) for line in text.splitlines() if line]


def wait_for_key(agent: Agent, key: str) -> None:
    """Wait until the key exists."""
    index = 0
    while True:
        query = f"http://{agent.address}/v1/kv/?keys&index={index}&wait=30s"
        with urlopen(query, timeout=60) as answer:
            index = int(answer.headers["X-Consul-Index"])
            if key in json.load(answer):
                return


@pytest.mark.full  # two servers; tests/contract reads and writes the same keys
def test_every_command_prints_what_the_page_shows(image: str, tmp_path: Path) -> None:
    """Except the commands for ACLs, which need a Consul with ACLs."""
    walk = [block for block in blocks(PAGE) if block.heading != "Permissions"]
    assert {block.language for block in walk} == {"sh", "json"}
    assert len(walk) >= 10
    with durable_agent(tmp_path / "consul") as agent:
        settings = {"consul_addr": agent.address, "warm_pool": "0"}
        with (
            running_server(tmp_path / "first", image, **settings) as server,
            bash_of(tmp_path, agent, server) as bash,
        ):
            printed = ""
            for block in walk:
                if block.heading == "Restore":
                    server.stop()
                if block.language == "json":
                    assert comparable(printed) == comparable(block.text)
                else:
                    printed = bash.run(block.text)
                if block.heading == "Operations":
                    wait_for_key(agent, f"pyexec/status/{bash.run('echo $id').strip()}")
            with running_server(tmp_path / "second", image, **settings) as again:
                execution = bash.run("echo $id").strip()
                wait_for_key(agent, f"pyexec/status/{execution}")
                with urlopen(f"{again.url}/api/v1/executions/{execution}") as answer:
                    assert json.load(answer)["exit_code"] == 3


def test_the_documented_permissions_are_sufficient(image: str, tmp_path: Path) -> None:
    with dev_agent(tmp_path / "consul", acl=ACL) as agent:
        environment = {**os.environ, "CONSUL_HTTP_ADDR": agent.address, "CONSUL_HTTP_TOKEN": MASTER}
        environment["PATH"] = f"{binary().parent}:{os.environ['PATH']}"

        def run(command: str, token: str = MASTER) -> subprocess.CompletedProcess[str]:
            own = {**environment, "CONSUL_HTTP_TOKEN": token}
            return subprocess.run(
                ["bash", "-ec", command], cwd=ROOT, env=own, capture_output=True, text=True, check=False
            )

        created = run("\n".join(block.text for block in blocks(PAGE) if block.heading == "Permissions"))
        assert created.returncode == 0, created.stderr
        servers, watcher = re.findall(r"SecretID: +(\S+)", created.stdout)
        settings = {"consul_addr": agent.address, "consul_token": servers, "warm_pool": "0"}
        with running_server(tmp_path / "data", image, **settings) as server:
            cli = [PROGRAM.parent / "python-executor", "--server", server.url, "--async"]
            accepted = subprocess.run(cli, input="print(6 * 7)", capture_output=True, text=True, check=True)
            execution = accepted.stdout.strip()
            with urlopen(f"{server.url}/api/v1/executions/{execution}?wait=60") as answer:
                assert json.load(answer)["stdout"] == "42\n"
            assert "permission denied" not in agent.log.lower()
            seen = run(f"consul kv get pyexec/status/{execution}", watcher)
            assert json.loads(seen.stdout)["status"] == "completed"
            hidden = run(f"consul kv get pyexec/executions/{execution}/events/000001", watcher)
            assert hidden.returncode != 0
            assert run(f"consul kv put pyexec/status/{execution} x", watcher).returncode != 0
        assert "has no permission" not in server.log.read_text()
