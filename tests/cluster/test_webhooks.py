"""Test that the webhook of an ended execution is delivered by the next leader if the leader dies before."""

from pathlib import Path

import pytest

from tests.cluster.conftest import OpenScene
from tests.support.api import api_of
from tests.support.consul import durable_agent, free_ports
from tests.support.metrics import until_figures
from tests.support.webhooks import SECRET, SECRET_TEXT, running_receiver

pytestmark = pytest.mark.independent


async def test_the_next_leader_delivers(scene: OpenScene, tmp_path: Path) -> None:
    port = free_ports(["receiver"])["receiver"]
    settings = {"webhook_hosts": f"http://127.0.0.1:{port}", "webhook_secrets": SECRET_TEXT}
    with durable_agent(tmp_path / "consul") as consul:
        async with scene([consul], size=2, **settings) as s:
            leader = await s.cluster.leader()
            other = next(replica for replica in s.cluster.replicas if replica is not leader)
            async with api_of(other.url) as api:
                url = f"http://127.0.0.1:{port}/done"
                execution_id = await api.accepted("print('from the other')", webhook_url=url)
                await api.ended(execution_id)
            await until_figures(
                leader.url, lambda figures: figures("pyexec_webhook_attempts_total", result="failed") > 0
            )
            await leader.kill()
            async with running_receiver(port) as receiver:
                (got,) = await receiver.until_received(execution_id)
                assert got.is_signed_by(SECRET)
                assert got.document["data"]["stdout"] == "from the other\n"
            await until_figures(other.url, lambda figures: figures("pyexec_webhooks_outstanding") == 0)
            await s.cluster.stop()
