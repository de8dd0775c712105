"""Looks at everything that a server with given settings needs, and leaves nothing behind."""

import os
from collections.abc import Sequence

from pyexec.preflight.consul import check_consul
from pyexec.preflight.docker import check_engine
from pyexec.preflight.findings import Finding, failed, fine
from pyexec.preflight.storage import (
    check_address,
    check_blobs,
    check_certificates,
    check_data_dir,
    check_installer,
)
from pyexec.settings import PREFIX
from pyexec.settings_parser import find_errors, read_settings


async def run_preflight() -> Sequence[Finding]:
    """What is found, one after the other: one that fails does not hide the next."""
    if wrong := find_errors(os.environ):
        return [failed("settings", error, "the other checks need it") for error in wrong]
    settings = read_settings(os.environ)
    given = sorted(name for name in os.environ if name.startswith(PREFIX))
    return [
        fine("settings", ", ".join(given) or "all have their defaults"),
        *check_address(settings),
        *check_data_dir(settings),
        *await check_blobs(settings),
        *check_certificates(settings),
        *check_installer(settings),
        *await check_consul(settings),
        *await check_engine(settings),
    ]
