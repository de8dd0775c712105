"""A process that appends events until it is killed, and prints the length of the log after each append.

python -m tests.contract.appender LOG LOCATION
"""

import sys
from pathlib import Path

import anyio

from tests.contract.logs import LOGS
from tests.events import claimed, new_id, released, submitted


async def append_for_ever(name: str, location: Path) -> None:
    async with LOGS[name](location) as log:
        execution, length = new_id(), 1
        await log.append(execution, 0, [submitted()])
        print(execution, length, flush=True)
        while True:
            await log.append(execution, length, [claimed(), released()])
            length += 2
            print(execution, length, flush=True)


if __name__ == "__main__":
    anyio.run(append_for_ever, sys.argv[1], Path(sys.argv[2]))
