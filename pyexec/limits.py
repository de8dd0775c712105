"""Compute the limits of runs and sessions from the settings."""

import attrs

from pyexec.domain.session_request import SessionLimits
from pyexec.domain.spec import Limits, Policy
from pyexec.errors import SettingsError
from pyexec.settings import PREFIX, Settings


def policy_of(settings: Settings, engine_cpus: int) -> Policy:
    """Return the defaults and ceilings of a run. Docker refuses limits above the number of its CPUs.

    A ceiling is also the default where there is no other: a request could evade it by naming no limit.

    Raises `SettingsError` if Docker would refuse every run with the default limits."""
    defaults, ceilings = limits_of(settings, "default"), limits_of(settings, "max")
    if defaults.cpus is not None and defaults.cpus > engine_cpus:
        raise SettingsError(
            f"{PREFIX}DEFAULT_CPUS is {defaults.cpus:g}; allowed: at most the number of processors of the Docker "
            f"engine, which is {engine_cpus}"
        )
    cpus = min(engine_cpus, ceilings.cpus or engine_cpus)
    return Policy(
        default_image=settings.default_image,
        defaults=attrs.evolve(
            defaults,
            cpus=cpus if defaults.cpus is None and ceilings.cpus is not None else defaults.cpus,
            cpu_seconds=defaults.cpu_seconds or ceilings.cpu_seconds,
        ),
        ceilings=attrs.evolve(ceilings, cpus=cpus),
        allowed_images=settings.allowed_images,
        setup_allowed=settings.setup_network != "none",
    )


def limits_of(settings: Settings, kind: str) -> Limits:
    """Return the `default` limits of a run, or the `max` ones."""
    names = ("memory_mb", "disk_mb", "cpu_shares", "cpus", "cpu_seconds")
    numbers = {name: getattr(settings, f"{kind}_{name}") for name in names}
    return Limits(timeout_seconds=getattr(settings, f"{kind}_timeout"), network_disabled=True, **numbers)


def session_limits_of(settings: Settings) -> SessionLimits:
    """Return the limits of a session's times."""
    idle, idle_max = settings.session_idle_timeout, settings.max_session_idle_timeout
    return SessionLimits(idle_default=idle, idle_max=idle_max, lifetime_max=settings.session_lifetime)
