"""Build an environment: execute a recipe in a setup container, then save the container as an image."""

import json
import logging
import math
import secrets
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import anyio
import uv
from attrs import frozen

from pyexec.domain.environment import REPOSITORY, Recipe, build_tag
from pyexec.domain.requirements import parse_requirements
from pyexec.errors import (
    EngineError,
    ExecutorError,
    ImageUnavailable,
    SetupFailed,
    SetupTimeout,
    Unavailable,
    first_error,
)
from pyexec.guest.setup_init import HOME, TOOLS
from pyexec.ports import Engine, Image, SetupContainer, SetupSpec
from pyexec.sandbox import guest_source
from pyexec.sandbox.environments.commit import commit
from pyexec.sandbox.environments.output_tail import OutputTail
from pyexec.sandbox.environments.setup_watch import SetupWatch
from pyexec.sandbox.environments.shared_work import OnOutput

logger = logging.getLogger(__name__)

STATIC_UV = Path(sys.prefix) / "share" / "python-executor" / "uv"
"""A static build, put here when the server is installed. The uv of the package `uv` needs this machine's C library."""
STARTUP_SECONDS = 30.0
CLEAN_UP_SECONDS = 60.0
ENGINE_SECONDS = 600.0
"""Time for the engine to start the container and to commit it, in addition to the setup's own timeout."""
STORED_BYTES_MIN = 1024 * 1024
"""The least size with which an environment counts: Docker keeps files of its own for each image, and a prepared image
can deceive the measurement. Environments that count as nothing are never removed."""
OLDEST_PYTHON = (3, 8)
_PYTHON_CHECK = "import ctypes, fcntl, json, marshal, resource, select, socket, tarfile, zipfile"
"""Imports modules of the standard library that the supervisor needs."""
_KILLED_EXIT = 137
_UV, _REQUIREMENTS, _CA, _APT = (
    f"{TOOLS}/{name}" for name in ("uv", "requirements.txt", "ca.pem", "apt.conf")
)


def installed_uv() -> Path:
    """Return the path of the static uv, else that of the package `uv`. Raise `FileNotFoundError` if both are
    missing."""
    return STATIC_UV if STATIC_UV.exists() else Path(uv.find_uv_bin())


class RunInBackground(Protocol):
    """Runs a task for which no caller waits."""

    def __call__(self, work: Callable[[], Coroutine[Any, Any, None]], name: str) -> None: ...


@frozen(kw_only=True)
class SetupConfig:
    """The operator's limits for a setup, in seconds and bytes, and the source of packages.

    `uv` is the path of the installer, a static build that runs in every image; None if there are no setups. `ca_bundle`
    contains the certificate authorities of the package index. `labels` are those of every container of this replica."""

    labels: Mapping[str, str]
    network: str
    timeout_seconds: float
    memory_bytes: int
    disk_bytes: int
    pids_max: int
    uv: Path | None
    index: Callable[[], AbstractContextManager[str | None]]
    """Yields the URL of the package index for one setup."""
    ca_bundle: Path | None = None


@frozen
class Setup:
    """Builds environments on an engine."""

    engine: Engine
    config: SetupConfig

    async def build(
        self,
        base: Image,
        recipe: Recipe,
        key: str,
        on_output: OnOutput,
        run_in_background: RunInBackground,
    ) -> None:
        """Build the image `pyexec-env:<key>` from `base`, or raise an error and leave no image of this name.

        Raises `SetupFailed`, `SetupTimeout`, `ImageUnavailable`, `EngineError` or `Unavailable`."""
        timeout = self.config.timeout_seconds + ENGINE_SECONDS
        with anyio.move_on_after(timeout) as building:
            container = await self.engine.start_setup(self._spec(base, recipe))
            try:
                python = await _find_python(container, base)
                with self.config.index() as index_url:
                    steps = tuple(self._steps(python, recipe, index_url))
                    stored = await self._install(container, steps, on_output)
                tag = build_tag(key, max(stored, STORED_BYTES_MIN), secrets.token_hex(4))
                await commit(container, tag, key, recipe)
                await self.engine.images.tag(f"{REPOSITORY}:{tag}", REPOSITORY, key)
            finally:
                # Removing it takes a second, and no caller has to wait for that.
                run_in_background(partial(_discard, container), name="remove a setup container")
        if building.cancelled_caught:
            raise SetupTimeout(
                f"building the environment timed out after {timeout:g} s, setup and engine together"
            )

    async def _install(self, container: SetupContainer, steps: Sequence["_Step"], on_output: OnOutput) -> int:
        """Execute all steps and end the container, within the limits of time and disk space.

        Return how many bytes they have stored."""
        config = self.config
        before = await container.written_bytes()
        failure: ExecutorError | None = None
        with anyio.move_on_after(config.timeout_seconds) as working:
            watch = SetupWatch(container, config.disk_bytes, before, working)
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(watch.follow_reports, name="follow the reports of a setup")
                    async with anyio.create_task_group() as comparing:
                        comparing.start_soon(
                            watch.compare_written_bytes, name="check the disk space of a setup"
                        )
                        for step in steps:
                            watch.step_field = step.field
                            await self._execute(container, step, on_output)
                        comparing.cancel_scope.cancel()
                    await container.finish()
            except* ExecutorError as errors:
                failure = first_error(errors)
        if failure := watch.failure or failure:
            raise failure
        if working.cancelled_caught:
            text = f"setup took longer than {config.timeout_seconds:g} s and was stopped"
            raise SetupTimeout(text, field=watch.step_field)
        await watch.check_at_end()
        return watch.stored_bytes

    async def _execute(self, container: SetupContainer, step: "_Step", on_output: OnOutput) -> None:
        tail = OutputTail()

        def receive(data: bytes) -> None:
            tail.add(data)
            on_output(data)

        if step.shown:
            on_output(f"$ {step.shown}\n".encode())
        try:
            code = await container.execute(step.command, step.environment, receive)
        except EngineError as error:
            text = f"{step.name} failed because its container ended: {error}"
            raise SetupFailed(text, field=step.field) from error
        if code == 0:
            return
        reason, is_whole = tail.reason()
        limit_mb = self.config.memory_bytes >> 20
        with suppress(EngineError, Unavailable):  # without an answer, the step's output is the reason
            if code == _KILLED_EXIT and await container.has_oom_event():
                reason = f"it ran out of memory; the memory limit of a setup is {limit_mb} MiB"
        text = f"{step.name} failed with exit code {code}: {reason}"
        raise SetupFailed(text, field=step.field, exit_code=code, is_whole=is_whole)

    def _steps(self, python: str, recipe: Recipe, index_url: str | None) -> Iterator["_Step"]:
        variables = self._environment(index_url)
        for index, command in enumerate(recipe.pre_commands):
            yield _Step(
                field="pre_commands",
                name=f"pre_commands[{index}]",
                shown=command,
                command=("sh", "-c", command),
                environment=variables,
            )
        if recipe.pre_commands:
            yield _Step(
                field="pre_commands",
                name="starting python3 after the pre_commands",
                shown="",
                command=("python3", "-I", "-S", "-c", _PYTHON_CHECK),
                environment=variables,
            )
        requirements = parse_requirements(recipe.requirements_txt or "")
        if requirements is None:
            return
        install = (_UV, "pip", "install", "--python", python, "--break-system-packages", "--compile-bytecode")
        quiet = ("--no-cache", "--no-config", "--no-progress", "--color", "never")
        environment = {**variables, "UV_PYTHON_DOWNLOADS": "never"}
        if index_url and not requirements.own_index:
            environment["UV_DEFAULT_INDEX"] = index_url
        shown = " ".join(("uv pip install", *requirements.options, "-r requirements.txt"))
        installer = (*install, *quiet, *requirements.options, "-r", _REQUIREMENTS)
        yield _Step(
            field="requirements_txt",
            name="installing the requirements",
            shown=shown,
            command=installer,
            environment=environment,
        )

    def _environment(self, index_url: str | None) -> Mapping[str, str]:
        """Return variables that configure the package index and its authorities, and turn off prompts."""
        variables = {
            "HOME": HOME,
            "USER": "root",
            "LOGNAME": "root",
            "DEBIAN_FRONTEND": "noninteractive",
            "PIP_BREAK_SYSTEM_PACKAGES": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_NO_CACHE_DIR": "1",
            "PIP_ROOT_USER_ACTION": "ignore",
        }
        if index_url:
            variables["PIP_INDEX_URL"] = index_url
        if index_url and (index := urlsplit(index_url)).scheme == "http":
            variables["PIP_TRUSTED_HOST"] = index.netloc.rpartition("@")[2]
        if self.config.ca_bundle:
            variables["APT_CONFIG"] = _APT
            names = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO")
            variables |= dict.fromkeys(names, _CA)
        return variables

    def _spec(self, base: Image, recipe: Recipe) -> SetupSpec:
        config = self.config
        files: dict[str, bytes | Path] = {} if config.uv is None else {_UV: config.uv}
        if requirements := parse_requirements(recipe.requirements_txt or ""):
            files[_REQUIREMENTS] = requirements.file_text.encode()
        if config.ca_bundle is not None:
            files[_CA] = config.ca_bundle
            files[_APT] = f'Acquire::https::CaInfo "{_CA}";\n'.encode()
        seconds = math.ceil(STARTUP_SECONDS + config.timeout_seconds + CLEAN_UP_SECONDS)
        return SetupSpec(
            image=base.id,
            command=guest_source.setup_command(seconds, config.disk_bytes),
            labels=config.labels,
            files=files,
            memory_bytes=config.memory_bytes,
            cpu_shares=512,
            pids_max=config.pids_max,
            file_bytes_max=config.disk_bytes,
            network=config.network,
        )


@frozen(kw_only=True)
class _Step:
    """A command of a setup: the field of the request that asks for it, its name in errors, the text shown in the
    output (empty: none), and the command itself."""

    field: str
    name: str
    shown: str
    command: Sequence[str]
    environment: Mapping[str, str]


async def _discard(container: SetupContainer) -> None:
    try:
        await container.remove()
    except ExecutorError as error:
        logger.error("removing a setup container failed; it remains until this server ends: %s", error)


async def _find_python(container: SetupContainer, base: Image) -> str:
    """Return the path of the image's `python3`. Raise `ImageUnavailable` if it is missing or too old."""
    name = base.names[0] if base.names else base.id
    line = b""
    with anyio.move_on_after(STARTUP_SECONDS):
        line = await container.read_line()
    try:
        facts = json.loads(line)
        version = tuple(int(part) for part in facts["python"])
        executable = str(facts["executable"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        reason = line.decode("utf-8", "replace")[:200] or "it printed no reason"
        raise ImageUnavailable(f"the image {name!r} has no Python that a setup can use: {reason}") from error
    if version < OLDEST_PYTHON:
        found = ".".join(map(str, version))
        raise ImageUnavailable(f"the image {name!r} has Python {found}; the oldest supported version is 3.8")
    return executable
