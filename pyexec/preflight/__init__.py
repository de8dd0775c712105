"""Check everything that a server with the given settings needs: `--check`. The checks leave nothing behind."""

import os
from collections.abc import Sequence

from pyexec.preflight.check_result import CheckResult, failed, ok
from pyexec.preflight.consul import check_consul
from pyexec.preflight.docker import check_engine
from pyexec.preflight.host import (
    check_address,
    check_blobs,
    check_certificates,
    check_data_dir,
    check_installer,
    check_sessions,
    check_tenants,
    check_traces,
    check_webhooks,
)
from pyexec.preflight.kernel import check_kernel
from pyexec.settings_parser import SETTINGS, find_errors, read_settings


async def run_preflight() -> Sequence[CheckResult]:
    """Run every check, even after one has failed. Wrong settings are the exception: all other checks need them."""
    if errors := find_errors(os.environ):
        return [failed("settings", error, "all other checks were skipped") for error in errors]
    settings = read_settings(os.environ)
    given = sorted(set(SETTINGS).intersection(os.environ))
    return [
        ok("settings", ", ".join(given) or "all settings have their default values"),
        *check_address(settings),
        *check_tenants(settings),
        *check_traces(os.environ),
        *check_webhooks(settings),
        *check_data_dir(settings),
        *await check_blobs(settings),
        *check_certificates(settings),
        *check_installer(settings),
        *check_sessions(settings),
        *check_kernel(settings),
        *await check_consul(settings),
        *await check_engine(settings),
    ]
