"""The memory that all sandboxes of a server may take together."""

from pyexec.settings import Settings
from pyexec.wiring.sandboxes import OVERHEAD_MB

SYSTEM_MB = 1024
"""The default of PYEXEC_MAX_TOTAL_MEMORY_MB leaves this memory to the system, Docker and the server."""
SYSTEM_SHARE = 8
"""On a machine with less than 8 GiB, the default leaves an eighth instead."""


def memory_budget_mb(settings: Settings, engine_mb: int) -> int:
    """Return the maximum memory of all sandboxes together, in MiB.

    By default it is enough for all slots at the default limits and for one run at the ceilings, but it leaves a part of
    the memory of the engine's machine to the system. Only one run at the default limits may take that part, too."""
    if settings.max_total_memory_mb is not None:
        return settings.max_total_memory_mb
    run_mb = default_run_mb(settings)
    largest = settings.max_memory_mb + settings.max_disk_mb + OVERHEAD_MB
    available = engine_mb - min(SYSTEM_MB, engine_mb // SYSTEM_SHARE)
    return min(max(available, min(run_mb, engine_mb)), max(settings.max_concurrent * run_mb, largest))


def default_run_mb(settings: Settings) -> int:
    """Return the memory that a run with the default limits reserves, in MiB."""
    return settings.default_memory_mb + settings.default_disk_mb + OVERHEAD_MB


def describe_memory(settings: Settings, engine_mb: int) -> tuple[str, bool]:
    """Return how much memory all sandboxes together and one run may take, and whether such a run fits. If it does not,
    the text says what to do."""
    budget, needed = memory_budget_mb(settings, engine_mb), default_run_mb(settings)
    text = f"all sandboxes together may take {budget} MiB; a run with the default limits takes {needed} MiB"
    if needed <= budget:
        return text, True
    fix = "lower PYEXEC_DEFAULT_MEMORY_MB and PYEXEC_DEFAULT_DISK_MB"
    if settings.max_total_memory_mb is not None:
        fix += ", or raise PYEXEC_MAX_TOTAL_MEMORY_MB"
    return f"{text}, so requests that name no limits are rejected; {fix}", False
