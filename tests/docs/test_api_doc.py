"""Run every command of docs/api.md, in order, and compare its output with the page."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from pyexec.codec import TAGS
from pyexec.domain.displays import encoded_display
from pyexec.domain.event_stream import EndItem, Item, Position, items_after
from pyexec.domain.events import FailureType
from pyexec.domain.output_log import OutputLog, Stream
from pyexec.web.application import ROUTES
from pyexec.web.sse import encode, parse_position
from tests import events
from tests.docs.blocks import Block, blocks, text_of
from tests.docs.shell import shell
from tests.support.server import Server

PAGE = "docs/api.md"


def alike(value: Any, name: str = "") -> Any:
    """Return a JSON value with placeholders for everything that varies between runs."""
    if isinstance(value, dict):
        return {key: alike(item, key) for key, item in value.items()}
    if isinstance(value, list):
        return [alike(item) for item in value]
    varies = name.endswith(("_id", "_at", "_ms", "_seconds", "_bytes")) or name in ("queue", "setup", "run")
    return type(value).__name__ if varies else value


def documents(text: str) -> list[Any]:
    """Parse a sequence of JSON documents, with or without line breaks between them."""
    found, at = [], 0
    while at < len(text.rstrip()):
        document, at = json.JSONDecoder().raw_decode(text, at)
        found.append(alike(document))
        at += len(text[at:]) - len(text[at:].lstrip())
    return found


def blocks_to_run(*, sessions: bool) -> Iterator[Block]:
    """Yield the blocks of the page, with or without the requests for sessions and what they print."""
    wanted = True
    for block in blocks(PAGE):
        if block.language == "bash":
            wanted = sessions or "/sessions" not in block.text
        if wanted:
            yield block


@pytest.mark.parametrize("sessions", [False, pytest.param(True, marks=pytest.mark.full)])
def test_every_command_prints_what_the_page_shows(server: Server, tmp_path: Path, *, sessions: bool) -> None:
    """For sessions, the server has to install IPython; README uses them, too."""
    last = ""
    with shell(tmp_path, os.environ, {"http://localhost:8080": server.url}) as bash:
        for block in blocks_to_run(sessions=sessions):
            if block.language == "bash":
                assert last.strip() == "", "the page does not show the output of this block"
                last = bash.run(block.text)
            elif block.language == "json":
                assert documents(last.lstrip()) == documents(block.text)
                last = ""
            else:
                assert last.strip() == block.text.strip()
                last = ""
    assert last.strip() == ""


def test_every_endpoint_and_every_failure_is_on_the_page() -> None:
    page = text_of(PAGE)
    for _, path, _ in ROUTES:
        short = re.sub(":[^}]*}", "}", path)
        assert short in page or short.replace("/api/v1/executions/{id}", "…") in page
    assert [failure for failure in FailureType if f"`{failure}`" not in page] == []


def every_item() -> list[Item]:
    """Return the items of executions in which every kind of event occurs."""
    output_log = OutputLog()
    for stream in (Stream.SETUP, Stream.STDOUT, Stream.STDERR):
        output_log.append(stream, b"abc")
    output_log.append(Stream.DISPLAY, encoded_display({"text/plain": [b'"42"']}, [b"{}"]))
    running = evolve(events.running(), image="sha256:0")
    begin = [events.submitted(), events.claimed(), events.released(), events.claimed(), events.preparing()]
    run = [*begin, running, events.adopted(), events.kill_requested()]
    ends = (events.finished(), events.failed(), events.killed())
    return [
        item for end in ends for item in items_after(events.new_id(), [*run, end], output_log, Position())
    ]


def test_the_table_of_events_equals_the_code() -> None:
    row = re.compile(r"^\| `(\w+)` \| [^|]* \| ([^|]*) \|$", re.M)
    section = text_of(PAGE).partition("\n## Events\n")[2].partition("\n## ")[0]
    table = {name: set(re.findall(r"`(\w+)`", fields)) for name, fields in row.findall(section)}
    sent: dict[str, set[str]] = {}
    for item in every_item():
        lines = dict(line.split(": ", 1) for line in encode("exe_1", item).decode().strip().split("\n"))
        assert parse_position(lines["id"]) == item.position
        fields = set() if isinstance(item, EndItem) else set(json.loads(lines["data"]))
        assert sent.setdefault(lines["event"], fields) == fields
    assert table == sent
    assert {event.name for event in TAGS.values()} == table.keys() - {"setup", "output", "display"}
