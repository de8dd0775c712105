"""A file of tenants, and executions of tenants."""

from pathlib import Path

from attrs import evolve

from pyexec.ports import EventLog
from tests.events import SPEC, claimed, finished, new_id, running, submitted

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


async def append_execution(log: EventLog, tenant: str, *, ended: bool = True) -> str:
    """Append an execution of a tenant, and return its id."""
    execution = new_id()
    first = evolve(submitted(), spec=evolve(SPEC, tenant=tenant, output_files=("*",)))
    events = [first, claimed(), running(), finished()] if ended else [first]
    await log.append(execution, 0, events)
    return execution
