"""Test `GET /api/v1/cluster` and the timeline on a running server that is alone."""

from tests.support.api import Api


async def test_a_server_alone_shows_itself(api: Api) -> None:
    result = await api.run("print(1)")
    answer = await api.get("/api/v1/cluster")
    assert answer.status == 200
    [replica] = answer.document["replicas"]
    assert replica["ready"]
    assert replica["leader"]
    assert answer.document["leader"] == replica["name"]
    assert replica["slots"]["total"] >= replica["slots"]["used"]
    assert [queue["tenant"] for queue in answer.document["queue"]] == ["default"]
    timeline = (await api.get(f"/api/v1/executions/{result['execution_id']}/timeline")).document
    assert [event["type"] for event in timeline["events"]] == ["submitted", "claimed", "running", "finished"]
    assert timeline["events"][-1]["replica"] == replica["name"]
    assert [phase["name"] for phase in timeline["phases"]][-1] == "running"
