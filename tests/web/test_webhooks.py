"""Test webhooks of a single server: delivery, retries, what is refused, and what is never connected to."""

import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.api import Api, api_of, pause
from tests.support.archives import script
from tests.support.consul import free_ports
from tests.support.metrics import figures, until_figures
from tests.support.server import Server, running_server
from tests.support.webhooks import (
    OLD_SECRET,
    OLD_SECRET_TEXT,
    SECRET,
    SECRET_TEXT,
    Receiver,
    running_receiver,
)

PORTS = free_ports(["listed", "unlisted"])
HOSTS = f"http://127.0.0.1:{PORTS['listed']},http://localhost:{PORTS['unlisted']}"


@pytest.fixture(scope="module")
def hooked(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {"webhook_hosts": HOSTS, "webhook_secrets": f"{SECRET_TEXT},{OLD_SECRET_TEXT}"}
    with running_server(tmp_path_factory.mktemp("hooked") / "data", image, **settings) as server:
        yield server
        assert "Traceback" not in server.log.read_text()


@pytest.fixture
async def api(hooked: Server) -> AsyncIterator[Api]:
    async with api_of(hooked.url) as client:
        yield client


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with running_receiver(PORTS["listed"]) as receiver:
        yield receiver


async def test_the_result_is_delivered_and_signed_with_each_secret(api: Api, receiver: Receiver) -> None:
    before = await figures(api.url)
    url = f"http://{receiver.host}/done?job=7"
    execution_id = await api.accepted("print('x' * 20_000); raise SystemExit(3)", webhook_url=url)
    (got,) = await receiver.until_received(execution_id)
    result = await api.ended(execution_id)
    assert (got.path, got.headers["Content-Type"]) == ("/done?job=7", "application/json")
    assert got.is_signed_by(SECRET)
    assert got.is_signed_by(OLD_SECRET)
    assert not got.is_signed_by(b"x" * 32)
    assert abs(int(got.headers["webhook-timestamp"]) - time.time()) < 60
    assert got.document == {
        "type": "execution.completed",
        "timestamp": result["finished_at"],
        "data": {**result, "stdout": result["stdout"][: 16 * 1024]},
        "left_out": ["stdout"],
    }
    assert "webhook_url" not in result
    delivered = ("pyexec_webhook_attempts_total", {"result": "delivered"})
    await until_figures(
        api.url, lambda f: f(delivered[0], **delivered[1]) > before(delivered[0], **delivered[1])
    )
    await until_figures(api.url, lambda f: f("pyexec_webhooks_outstanding") == 0)
    assert len(receiver.received) == 1


async def test_synchronous_runs_eval_and_kills_are_delivered_too(api: Api, receiver: Receiver) -> None:
    url = f"http://{receiver.host}/"
    ran = await api.run("print(1)", webhook_url=url)
    evaluated = (await api.eval({"code": "6 * 7", "eval_last_expr": True, "webhook_url": url})).document
    sleeping = await api.accepted("import time; print('up', flush=True); time.sleep(60)", webhook_url=url)
    await api.until_printed(sleeping, b"up")
    await api.kill(sleeping)
    for execution_id, status in (
        (ran["execution_id"], "completed"),
        (evaluated["execution_id"], "completed"),
        (sleeping, "killed"),
    ):
        (got,) = await receiver.until_received(execution_id)
        assert got.document["data"]["status"] == status


@pytest.mark.parametrize("status", [500, 302])
async def test_a_delivery_that_fails_is_repeated_with_the_same_id(
    api: Api, receiver: Receiver, status: int
) -> None:
    receiver.answers = [status]
    execution_id = await api.accepted("print(1)", webhook_url=f"http://{receiver.host}/")
    first, second = await receiver.until_received(execution_id, 2)
    assert first.body == second.body
    assert second.is_signed_by(SECRET)
    assert [each.path for each in receiver.received] == ["/", "/"]  # the redirect was not followed


async def test_a_receiver_that_is_gone_is_not_asked_again(
    hooked: Server, api: Api, receiver: Receiver
) -> None:
    receiver.answers = [410]
    before = await figures(api.url)
    execution_id = await api.accepted("print(1)", webhook_url=f"http://{receiver.host}/")
    await receiver.until_received(execution_id)
    dropped = "pyexec_webhooks_dropped_total"
    await until_figures(api.url, lambda f: f(dropped) == before(dropped) + 1)
    assert f"webhook of {execution_id} to http://{receiver.host} dropped" in hooked.log.read_text()


async def test_a_name_that_resolves_to_a_private_address_is_never_connected_to(
    hooked: Server, api: Api
) -> None:
    """`localhost` is a listed name with this port, but its address is not listed with it."""
    before = await figures(api.url)
    async with running_receiver(PORTS["unlisted"]) as hidden:
        url = f"http://localhost:{hidden.port}/secret-path"
        execution_id = await api.accepted("print(1)", webhook_url=url)
        failed = "pyexec_webhook_attempts_total"
        await until_figures(api.url, lambda f: f(failed, result="failed") > before(failed, result="failed"))
        assert hidden.received == []
    log = hooked.log.read_text()
    assert f"webhook of {execution_id} to http://localhost:{hidden.port} failed; retrying" in log
    assert "is not a public address" in log
    assert "secret-path" not in log


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://hooks.example.com/", "does not allow"),
        ("http://127.0.0.1:1/", "does not allow"),
        ("http://user:pass@127.0.0.1/", "user or a password"),
        ("nothing", "must be a URL"),
    ],
)
async def test_urls_that_are_not_allowed_are_refused(api: Api, url: str, said: str) -> None:
    for answer in (
        await api.sync(script("print(1)"), {"webhook_url": url}),
        await api.submit(script("print(1)"), {"webhook_url": url}),
        await api.eval({"code": "1", "webhook_url": url}),
    ):
        assert (answer.status, answer.document["field"]) == (400, "webhook_url")
        assert said in answer.document["error"]


async def test_without_hosts_webhooks_are_refused(narrow: Api) -> None:
    answer = await narrow.eval({"code": "1", "webhook_url": "https://hooks.example.com/"})
    assert (answer.status, answer.document["field"]) == (400, "webhook_url")
    assert "webhooks are disabled on this server" in answer.document["error"]


async def test_an_outstanding_webhook_survives_a_crash_and_the_retention(image: str, tmp_path: Path) -> None:
    port = free_ports(["later"])["later"]
    settings = {
        "webhook_hosts": f"http://127.0.0.1:{port}",
        "webhook_secrets": SECRET_TEXT,
        "cleanup_ttl": "1",
    }
    with running_server(tmp_path / "data", image, **settings) as server:
        async with api_of(server.url) as api:
            execution_id = await api.accepted("print(1)", webhook_url=f"http://127.0.0.1:{port}/")
            other = await api.run("print(2)")
            await api.ended(execution_id)
            while (await api.get(f"/api/v1/executions/{other['execution_id']}")).status == 200:
                await pause()  # until the retention has deleted an execution that ended later
            assert (await api.get(f"/api/v1/executions/{execution_id}")).status == 200
        server.process.kill()
        server.process.wait()
    async with running_receiver(port) as receiver:
        with running_server(tmp_path / "data", image, **settings):
            (got,) = await receiver.until_received(execution_id)
            assert got.document["data"]["stdout"] == "1\n"
