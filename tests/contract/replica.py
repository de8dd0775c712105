"""A process that is a member and leads, for tests that suspend it. It prints its state.

python -m tests.contract.replica CONSUL_ADDRESS PREFIX REPLICA EXECUTION
"""

import sys

import anyio
from anyio import to_thread

from pyexec.adapters.consul.config import ConsulConfig
from pyexec.adapters.consul.kv import ConsulKV
from pyexec.adapters.consul.log import ConsulLog
from pyexec.adapters.consul.membership import ConsulMembership
from pyexec.errors import ExecutorError
from tests.contract.logs import member
from tests.events import claimed, running, submitted


async def lead(membership: ConsulMembership) -> None:
    async with membership.lead():
        print("leading", flush=True)
        await anyio.sleep_forever()
    print("leadership lost", flush=True)


async def append(log: ConsulLog, execution: str) -> None:
    try:
        await log.append(execution, 2, [running()])
    except ExecutorError as error:
        print(type(error).__name__, flush=True)
    else:
        print("appended", flush=True)


async def main(address: str, prefix: str, replica: str, execution: str) -> None:
    async with (
        ConsulKV(ConsulConfig(address=address, prefix=prefix)) as kv,
        ConsulMembership.open(kv) as membership,
        ConsulLog.open(kv, membership.fence) as log,
        anyio.create_task_group() as tasks,
    ):
        await membership.join(member(replica))
        await log.append(execution, 0, [submitted(), claimed(replica)])
        tasks.start_soon(lead, membership, name="lead")
        while await to_thread.run_sync(sys.stdin.readline):
            await append(log, execution)
        tasks.cancel_scope.cancel()


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])
