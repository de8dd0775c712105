"""A file of tenants, and executions of tenants."""

from pathlib import Path

from attrs import evolve

from tests.events import SPEC, claimed, finished, new_id, running, submitted
from tests.web.in_process import Web

FILE = """
[a]
tokens = ["token-a", "second-a"]
max_queued = 3

[b]
tokens = ["token-b"]

[capped]
tokens = ["token-c"]
max_running = 1
max_queued = 0
"""


def tenants_file(directory: Path) -> str:
    file = directory / "tenants.toml"
    file.write_text(FILE)
    return str(file)


def as_token(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def append(web: Web, tenant: str, *, ended: bool = True) -> str:
    execution = new_id()
    first = evolve(submitted(), spec=evolve(SPEC, tenant=tenant, output_files=("*",)))
    events = [first, claimed(), running(), finished()] if ended else [first]
    await web.log.append(execution, 0, events)
    return execution
