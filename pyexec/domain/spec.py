"""The request of a caller, and the spec that it becomes under the server's defaults and ceilings."""

import posixpath
import re
import sys
from typing import ClassVar

from attrs import field, fields, frozen

from pyexec.domain.environment import Recipe
from pyexec.domain.field_hints import RUN_HINTS
from pyexec.domain.image_patterns import is_allowed
from pyexec.domain.output_files import normalize_patterns
from pyexec.domain.process_arguments import check_process_arguments
from pyexec.domain.requirements import parse_requirements
from pyexec.domain.tenants import DEFAULT_TENANT
from pyexec.domain.webhooks import WebhookPolicy
from pyexec.errors import InvalidRequest, quote

MEBIBYTE = 1024 * 1024
PATH_LENGTH_MAX = 4095

_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]+)?"
_NAME = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST = r"[A-Za-z][A-Za-z0-9+._-]*:[0-9a-fA-F]{32,}"
_IMAGE = re.compile(f"(?:{_HOST}/)?{_NAME}(?:/{_NAME})*(?::{_TAG})?(?:@{_DIGEST})?")
"""The name of an image, with the grammar that Docker uses (distribution/reference)."""


TIMEOUT_SECONDS_MIN = 0.001
ENV_VARS = {"example": '["NAME=value"]'}
REQUIREMENTS_TXT = {"example": r'"numpy\npandas"'}


@frozen(kw_only=True)
class RequestedLimits:
    """Limits of the run. A missing limit has the server's default. A limit over the server's ceiling is an error."""

    timeout_seconds: float | None = field(default=None, metadata={"minimum": TIMEOUT_SECONDS_MIN})
    network_disabled: bool = True
    memory_mb: int | None = field(default=None, metadata={"minimum": 16})
    disk_mb: int | None = field(default=None, metadata={"minimum": 1})
    cpu_shares: int | None = field(default=None, metadata={"minimum": 2})
    cpus: float | None = field(default=None, metadata={"minimum": 0.01})
    cpu_seconds: float | None = field(default=None, metadata={"minimum": 0.01})


@frozen(kw_only=True)
class Metadata:
    """Options of a run."""

    HINTS: ClassVar = RUN_HINTS

    entrypoint: str | None = None
    docker_image: str | None = None
    requirements_txt: str | None = field(default=None, metadata=REQUIREMENTS_TXT)
    inline_requirements: bool = True
    pre_commands: tuple[str, ...] = ()
    stdin: str = ""
    env_vars: tuple[str, ...] = field(default=(), metadata=ENV_VARS)
    script_args: tuple[str, ...] = ()
    output_files: tuple[str, ...] = ()
    capture_displays: bool = False
    webhook_url: str | None = None
    config: RequestedLimits = field(factory=RequestedLimits)


@frozen(kw_only=True)
class SourceFile:
    """A file of source text."""

    name: str
    content: str


@frozen(kw_only=True)
class EvalRequest:
    """Source text to run. `code` and `files` exclude each other, and so do `docker_image` and `python_version`."""

    HINTS: ClassVar = RUN_HINTS

    code: str | None = None
    files: tuple[SourceFile, ...] = ()
    entrypoint: str | None = None
    stdin: str = ""
    config: RequestedLimits = field(factory=RequestedLimits)
    docker_image: str | None = None
    python_version: str | None = None
    requirements_txt: str | None = field(default=None, metadata=REQUIREMENTS_TXT)
    inline_requirements: bool = True
    pre_commands: tuple[str, ...] = ()
    env_vars: tuple[str, ...] = field(default=(), metadata=ENV_VARS)
    script_args: tuple[str, ...] = ()
    output_files: tuple[str, ...] = ()
    eval_last_expr: bool = False
    capture_displays: bool = True
    webhook_url: str | None = None


@frozen(kw_only=True)
class Limits:
    """The limits of a run, with defaults applied."""

    timeout_seconds: float
    network_disabled: bool
    memory_mb: int
    disk_mb: int
    cpu_shares: int
    cpus: float | None = None
    cpu_seconds: float | None = None


@frozen(kw_only=True)
class Spec:
    """Everything that determines how an execution runs. If `entrypoint` is None, it is detected in the archive.

    `requires_python` is the version specifier that the image's Python must satisfy; None if any will do. `tenant` is
    the tenant of the token that the caller sent, not a part of the request.

    A cell names its session, and has its source text in `code`, or in the payload if it is long."""

    docker_image: str
    limits: Limits
    entrypoint: str | None = None
    stdin: str = ""
    env_vars: tuple[str, ...] = ()
    script_args: tuple[str, ...] = ()
    eval_last_expr: bool = False
    capture_displays: bool = False
    pre_commands: tuple[str, ...] = ()
    requirements_txt: str | None = None
    requires_python: str | None = None
    output_files: tuple[str, ...] = ()
    webhook_url: str | None = None
    tenant: str = DEFAULT_TENANT
    session_id: str | None = None
    code: str | None = None

    @property
    def reports(self) -> bool:
        """True if the program reports displays, the value of its last expression, or its exception."""
        return self.capture_displays or self.eval_last_expr

    @property
    def recipe(self) -> Recipe | None:
        """The recipe of the environment that the execution needs; None if it needs only the image."""
        return _recipe(self.pre_commands, self.requirements_txt)


@frozen(kw_only=True)
class SessionSpec:
    """Everything that determines how an interpreter session runs.

    `limits` apply to each cell. `timeout_seconds` in it is the default of a cell's timeout."""

    docker_image: str
    limits: Limits
    idle_timeout_seconds: float
    lifetime_seconds: float
    env_vars: tuple[str, ...] = ()
    pre_commands: tuple[str, ...] = ()
    requirements_txt: str | None = None
    tenant: str = DEFAULT_TENANT

    @property
    def recipe(self) -> Recipe | None:
        """The recipe of the environment that the session needs; None if it needs only the image."""
        return _recipe(self.pre_commands, self.requirements_txt)


def _recipe(pre_commands: tuple[str, ...], requirements_txt: str | None) -> Recipe | None:
    if not pre_commands and requirements_txt is None:
        return None
    return Recipe(pre_commands=pre_commands, requirements_txt=requirements_txt)


@frozen(kw_only=True)
class Policy:
    """The operator's defaults and ceilings.

    `allowed_images` are patterns; if there are none, all images are allowed. `setup_allowed` is false if package
    installation is disabled."""

    default_image: str
    defaults: Limits
    ceilings: Limits
    allowed_images: tuple[str, ...] = ()
    setup_allowed: bool = True
    webhooks: WebhookPolicy = field(factory=WebhookPolicy)

    def allows(self, image: str) -> bool:
        """Return True if a request may name this image."""
        patterns = (self.default_image, *self.allowed_images)
        return not self.allowed_images or is_allowed(image, patterns)

    def check_setup(self, field: str) -> None:
        """Raise `InvalidRequest` if package installation is disabled. `field` asks for it."""
        if not self.setup_allowed:
            raise InvalidRequest(
                "package installation is disabled (PYEXEC_SETUP_NETWORK=none); use an image that contains the packages",
                field=field,
            )


def resolve(metadata: Metadata, policy: Policy) -> Spec:
    """Return the spec for `metadata` under `policy`; raise `InvalidRequest` with the first field that is not valid."""
    if metadata.docker_image:
        _check_image(metadata.docker_image, policy)
    requirements = parse_requirements(metadata.requirements_txt or "")
    if requirements is not None or metadata.pre_commands:
        policy.check_setup("requirements_txt" if requirements is not None else "pre_commands")
    if metadata.entrypoint is not None:
        _check_entrypoint(metadata.entrypoint)
    check_process_arguments(metadata.script_args, metadata.env_vars, metadata.pre_commands)
    normalize_patterns(metadata.output_files)
    return Spec(
        entrypoint=None if metadata.entrypoint is None else posixpath.normpath(metadata.entrypoint),
        docker_image=metadata.docker_image or policy.default_image,
        stdin=metadata.stdin,
        env_vars=metadata.env_vars,
        script_args=metadata.script_args,
        pre_commands=metadata.pre_commands,
        requirements_txt=requirements.text if requirements else None,
        output_files=metadata.output_files,
        capture_displays=metadata.capture_displays,
        webhook_url=metadata.webhook_url,
        limits=_resolve_limits(metadata.config, policy),
    )


def _resolve_limits(requested: RequestedLimits, policy: Policy) -> Limits:
    """Return the requested limits with defaults applied; raise `InvalidRequest` for one that is out of range."""
    resolved: dict[str, float | None] = {}
    for limit in fields(RequestedLimits):
        name, minimum = limit.name, limit.metadata.get("minimum")
        if minimum is None:
            continue
        value = getattr(requested, name)
        if value is None:
            resolved[name] = getattr(policy.defaults, name)
            continue
        check_range(f"config.{name}", value, minimum, getattr(policy.ceilings, name))
        resolved[name] = value
    return Limits(network_disabled=requested.network_disabled, **resolved)  # type: ignore[arg-type]


def check_range(field: str, value: float, minimum: float, maximum: float | None) -> None:
    """Raise `InvalidRequest` if the value of a field is out of range."""
    # Compare without conversion: JSON allows whole numbers that no float can hold.
    if not minimum <= value <= (sys.float_info.max if maximum is None else maximum):
        at_most = "" if maximum is None else f" and at most {maximum:g}"
        raise InvalidRequest(
            f"{field} must be at least {minimum:g}{at_most}, not {str(value)[:20]}", field=field
        )


def _check_image(image: str, policy: Policy) -> None:
    if len(image) > 512 or _IMAGE.fullmatch(image) is None:
        raise InvalidRequest(
            "docker_image must be an image name such as python:3.12-slim", field="docker_image"
        )
    if not policy.allows(image):
        allowed = (policy.default_image, *policy.allowed_images)
        raise InvalidRequest(
            f"docker_image {quote(image)} is not allowed on this server; allowed are {', '.join(allowed)}",
            field="docker_image",
        )


def _check_entrypoint(entrypoint: str) -> None:
    if not entrypoint or "\0" in entrypoint or len(entrypoint) > PATH_LENGTH_MAX:
        raise InvalidRequest(
            f"entrypoint must be a path inside the archive of at most {PATH_LENGTH_MAX} characters",
            field="entrypoint",
        )
    normal = posixpath.normpath(entrypoint)
    if normal.startswith("/"):
        raise InvalidRequest(
            f"entrypoint {quote(entrypoint)} is an absolute path; use a path relative to the root of the archive",
            field="entrypoint",
        )
    if normal.startswith("../") or normal == "..":
        raise InvalidRequest(
            f"entrypoint {quote(entrypoint)} is outside the archive; use a path relative to its root",
            field="entrypoint",
        )
    if normal == "." or entrypoint.endswith("/"):
        raise InvalidRequest(
            f"entrypoint {quote(entrypoint)} is a directory; name a file", field="entrypoint"
        )
