"""Test data that is too large for Consul: the caller gets one clear error, and the server continues."""

from collections.abc import Iterator

import pytest

from tests.support.api import Api, api_of
from tests.support.archives import script
from tests.support.cases import sampled
from tests.support.consul import dev_agent
from tests.support.server import Server, running_server

FLOOD = "import sys\nfor _ in range(9): sys.stdout.write('x' * 1_000_000)"


@pytest.fixture(scope="module")
def server(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("too large")
    with (
        dev_agent(directory / "consul") as agent,
        running_server(directory / "data", image, consul_addr=agent.address) as server,
    ):
        yield server
        log = server.log.read_text()
        assert "Traceback" not in log, log


async def check_still_works(api: Api) -> None:
    assert (await api.run("print(6 * 7)"))["stdout"] == "42\n"


async def test_a_program_that_prints_too_much_has_failed(server: Server) -> None:
    async with api_of(server.url) as api:
        result = await api.run(FLOOD)
        kept = await api.ended(result["execution_id"])
        for answer in (result, kept):
            assert (answer["status"], answer["error_type"], answer["exit_code"]) == (
                "failed",
                "output_limit",
                137,
            )
            assert "PYEXEC_BLOB_URL" in answer["error"]
        assert kept["stdout"]
        assert result["stdout"].startswith(kept["stdout"])
        await check_still_works(api)


async def test_the_message_of_an_error_that_is_too_large_is_cut(server: Server) -> None:
    async with api_of(server.url) as api:
        result = await api.run(r"raise ValueError('\x01' * 60_000)")
        assert (result["status"], result["error_type"], result["exit_code"]) == ("completed", "ValueError", 1)
        kept = await api.ended(result["execution_id"])
        assert (kept["error"], kept["error_type"]) == (result["error"], "ValueError")
        assert kept["error"].startswith("\x01\x01")
        assert len(kept["error"]) < 60_000
        await check_still_works(api)


async def test_a_result_that_is_too_large_is_cut(server: Server) -> None:
    async with api_of(server.url) as api:
        answer = await api.eval({"code": "print('printed')\n'x' * 1_000_000", "eval_last_expr": True})
        result = answer.document
        assert (result["status"], result["stdout"]) == ("completed", "printed\n")
        assert result["truncated"]["result"]
        await check_still_works(api)


async def test_a_result_too_large_for_consul_is_omitted(server: Server) -> None:
    code = "class A:\n    def __repr__(self): return '\\x01' * 65536\nprint('y' * 60_000)\nA()"
    async with api_of(server.url) as api:
        result = (await api.eval({"code": code, "eval_last_expr": True})).document
    assert (result["status"], result["stdout"]) == ("completed", "y" * 60_000 + "\n")
    assert ("result" in result, result["truncated"]["result"]) == (False, True)


@sampled("route", ["sync", "submit"], every=2)
async def test_a_request_that_is_too_large_is_refused(server: Server, route: str) -> None:
    async with api_of(server.url) as api:
        newest = await api.newest()
        answer = await getattr(api, route)(script("print('never')"), {"stdin": "x" * 400_000})
        assert (answer.status, answer.document["code"]) == (413, "too_large")
        assert "Consul" in answer.document["error"]
        assert await api.newest() == newest
        fits = await api.run("print(len(input()))", stdin="x" * 200_000)
        assert fits["stdout"] == "200000\n"
        await check_still_works(api)
