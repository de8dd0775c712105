"""Check that any replica answers for an execution that another one has accepted or runs."""

from tests.support.api import Api, form
from tests.support.archives import script

WRITES = """\
import pathlib, sys
pathlib.Path("made.txt").write_text("made")
print(sys.argv[1])
print("err", file=sys.stderr)
"""
WAITS = "import time; print('on', flush=True); time.sleep(120)"


async def check_contract(first: Api, second: Api) -> None:
    """Use each endpoint of the second replica for executions of the first one."""
    await _check_results(first, second)
    await _check_live_output_and_kill(first, second)
    await _check_idempotency(first, second)
    for api in (first, second):
        unknown = await api.get(f"/api/v1/executions/exe_{'0' * 32}")
        assert (unknown.status, unknown.document["code"]) == (404, "not_found"), unknown


async def _check_results(first: Api, second: Api) -> None:
    result = await first.run(WRITES, script_args=["argument"], output_files=["*.txt"])
    assert (result["status"], result["stdout"], result["stderr"]) == ("completed", "argument\n", "err\n"), (
        result
    )
    assert result["files"] == [{"path": "made.txt", "size": 4}]
    execution = f"/api/v1/executions/{result['execution_id']}"
    assert (await second.get(execution)).document == result
    for path, body in {"/logs?stream=stdout": b"argument\n", "/files/made.txt": b"made"}.items():
        async with second.session.get(execution + path) as answer:
            assert (answer.status, await answer.read()) == (200, body)
    assert [event.name for event in await first.all_events(result["execution_id"])] == [
        event.name for event in await second.all_events(result["execution_id"])
    ]
    assert await second.newest() == result["execution_id"]
    evaluated = await second.eval({"code": "6 * 7", "eval_last_expr": True})
    assert (evaluated.status, evaluated.document["result"]) == (200, "42"), evaluated
    assert await first.newest() == evaluated.document["execution_id"]


async def _check_live_output_and_kill(first: Api, second: Api) -> None:
    running = await first.accepted(WAITS)
    await second.until_printed(running, b"on\n")
    assert (await second.get(f"/api/v1/executions/{running}")).document["status"] == "running"
    killed = await second.kill(running)
    assert (killed.status, killed.document["status"]) == (200, "killed"), killed
    assert (await first.ended(running))["status"] == "killed"


async def _check_idempotency(first: Api, second: Api) -> None:
    headers = {"Idempotency-Key": f"contract of {first.url}"}
    same = [
        await api.session.post("/api/v1/exec/async", data=form(script("print(1)")), headers=headers)
        for api in (first, second)
    ]
    ids = {(await answer.json())["execution_id"] for answer in same}
    assert ([answer.status for answer in same], len(ids)) == ([202, 202], 1)
    other = await second.session.post("/api/v1/exec/async", data=form(script("print(2)")), headers=headers)
    assert other.status == 409, await other.text()
    assert (await second.ended(ids.pop()))["stdout"] == "1\n"
