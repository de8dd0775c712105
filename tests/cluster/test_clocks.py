"""Test two replicas whose clocks differ by an hour: the wrong one logs it once, and everything else works."""

import sys
from pathlib import Path

import pytest

from tests.support.api import api_of
from tests.support.cases import sampled
from tests.support.consul import dev_agent
from tests.support.server import running_server

pytestmark = pytest.mark.independent

SKEWED = Path(__file__).parents[1] / "support" / "skewed.py"
SETTINGS = {
    "max_concurrent": "1",
    "warm_pool": "1",
    "queue_timeout": "120",
    "stop_timeout": "1",
    "cleanup_ttl": "86400",  # more than the clocks differ, else a fast leader retires too early
}
RUNS = 3
AHEAD, BEHIND = "s ahead of that of Consul", "s behind that of Consul"


@sampled(
    ("leader", "seconds", "words"),
    [
        ("wrong", 3600, AHEAD),
        ("wrong", -3600, BEHIND),
        ("right", 3600, AHEAD),
        ("right", -3600, BEHIND),
    ],
    every=4,
)
async def test_replicas_with_different_clocks_work_together(
    image: str, tmp_path: Path, seconds: int, words: str, leader: str
) -> None:
    programs = {"right": None, "wrong": [sys.executable, "-P", SKEWED, str(seconds)]}
    first, second = sorted(programs, key=lambda name: name != leader)
    with dev_agent(tmp_path / "consul") as agent:
        settings = {**SETTINGS, "consul_addr": agent.address}
        with (
            running_server(tmp_path / first, image, programs[first], **settings) as one,
            running_server(tmp_path / second, image, programs[second], **settings) as two,
        ):
            async with api_of(one.url) as here, api_of(two.url) as there:
                assert (await here.run("print('here')"))["stdout"] == "here\n"
                assert (await there.run("print('there')"))["stdout"] == "there\n"
                sleeping = await there.accepted("import time; time.sleep(600)")
                ids = [await here.accepted("print('queued')") for _ in range(RUNS)]
                for execution in ids:
                    result = await there.ended(execution)
                    assert (result["status"], result["stdout"]) == ("completed", "queued\n")
                    assert min(result["timings_ms"].values()) >= 0
                    assert await here.ended(execution) == result
                assert (await here.kill(sleeping)).document == {"status": "killed"}
                listed = (await here.get("/api/v1/executions?limit=100")).document["executions"]
                assert {*ids, sleeping} <= {execution["execution_id"] for execution in listed}
        logs = {name: (tmp_path / f"{name}.log").read_text() for name in programs}
        assert logs["wrong"].count("this machine's clock is") == logs["wrong"].count(words) == 1
        assert "clock" not in logs["right"]
        assert "Traceback" not in logs["right"] + logs["wrong"]
