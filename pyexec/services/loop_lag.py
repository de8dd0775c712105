"""How busy the event loop is: everything waits as long as this says."""

from time import perf_counter
from typing import Final

import anyio

from pyexec.metrics import LOOP_LAG_SECONDS, Meter

SAMPLE_SECONDS: Final = 1.0


async def measure_loop_lag(meter: Meter) -> None:
    """Samples it until cancelled."""
    while True:
        begun = perf_counter()
        await anyio.sleep(SAMPLE_SECONDS)
        meter.observe(LOOP_LAG_SECONDS, max(0.0, perf_counter() - begun - SAMPLE_SECONDS))
