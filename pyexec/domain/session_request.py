"""The request for an interpreter session, and the spec that it becomes under the server's defaults and ceilings."""

from typing import ClassVar

from attrs import field, frozen

from pyexec.domain.field_hints import OTHER_NAMES
from pyexec.domain.spec import (
    ENV_VARS,
    REQUIREMENTS_TXT,
    Metadata,
    Policy,
    RequestedLimits,
    SessionSpec,
    check_range,
    resolve,
)

SECONDS_MIN = 1


@frozen(kw_only=True)
class SessionRequest:
    """Options of a session. A time that is missing has the server's default."""

    HINTS: ClassVar = OTHER_NAMES

    docker_image: str | None = None
    requirements_txt: str | None = field(default=None, metadata=REQUIREMENTS_TXT)
    pre_commands: tuple[str, ...] = ()
    env_vars: tuple[str, ...] = field(default=(), metadata=ENV_VARS)
    config: RequestedLimits = field(factory=RequestedLimits)
    idle_timeout_seconds: float | None = field(default=None, metadata={"minimum": SECONDS_MIN})
    lifetime_seconds: float | None = field(default=None, metadata={"minimum": SECONDS_MIN})


@frozen(kw_only=True)
class SessionLimits:
    """The operator's limits of a session's times, in seconds. `lifetime_max` is also the default lifetime."""

    idle_default: float
    idle_max: float
    lifetime_max: float


def resolve_session(request: SessionRequest, policy: Policy, session_limits: SessionLimits) -> SessionSpec:
    """Return the spec for `request`; raise `InvalidRequest` with the first field that is not valid."""
    spec = resolve(
        Metadata(
            docker_image=request.docker_image,
            requirements_txt=request.requirements_txt,
            pre_commands=request.pre_commands,
            env_vars=request.env_vars,
            config=request.config,
        ),
        policy,
    )
    return SessionSpec(
        docker_image=spec.docker_image,
        limits=spec.limits,
        idle_timeout_seconds=_seconds(
            "idle_timeout_seconds",
            request.idle_timeout_seconds,
            session_limits.idle_default,
            session_limits.idle_max,
        ),
        lifetime_seconds=_seconds(
            "lifetime_seconds",
            request.lifetime_seconds,
            session_limits.lifetime_max,
            session_limits.lifetime_max,
        ),
        env_vars=spec.env_vars,
        pre_commands=spec.pre_commands,
        requirements_txt=spec.requirements_txt,
    )


def _seconds(name: str, requested: float | None, default: float, maximum: float) -> float:
    if requested is None:
        return default
    check_range(name, requested, SECONDS_MIN, maximum)
    return requested
