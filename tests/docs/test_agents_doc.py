"""Record the transcript of docs/agents.md again, and compare it with the page. `…` on the page matches anything."""

from tests.docs.blocks import blocks
from tests.docs.test_pages import unseen
from tests.docs.transcript import record
from tests.support.server import Server


async def test_the_transcript_is_what_the_server_answers(server: Server) -> None:
    (shown,) = (block for block in blocks("docs/agents.md") if block.heading == "What it looks like")
    recorded = await record(server.url)
    assert unseen(shown, recorded) == [], recorded
    assert len(shown.text.splitlines()) == len(recorded.splitlines())
