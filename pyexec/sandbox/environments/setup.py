"""Making an environment: a recipe is carried out in a setup container, which then becomes an image."""

import json
import logging
import math
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, Protocol

import anyio
from attrs import frozen

from pyexec.domain.environment import REPOSITORY, Recipe, parse_requirements
from pyexec.errors import EngineError, ExecutorError, ImageUnavailable, SetupFailed, SetupTimeout, first_error
from pyexec.guest.setup_init import TOOLS
from pyexec.ports import Engine, Image, SetupContainer, SetupSpec

logger = logging.getLogger(__name__)

Say = Callable[[bytes], None]

ENVIRONMENT_LABEL = "pyexec.environment"
BASE_SIZE_LABEL = "pyexec.base-size"
START_SECONDS = 30.0
CLEAN_UP_SECONDS = 60.0
ENGINE_SECONDS = 600.0
"""How much longer than the setup itself the engine may take to begin it and to make an image of it."""
DISK_WATCH_SECONDS = 1.0
"""How often a setup's disk is measured: the engine neither bounds it on every file system nor tells of it."""
OLDEST_PYTHON = (3, 8)
_KILLED_EXIT = 137
_UV, _REQUIREMENTS, _CA, _APT = (
    f"{TOOLS}/{name}" for name in ("uv", "requirements.txt", "ca.pem", "apt.conf")
)


class Later(Protocol):
    """Does something that nobody waits for."""

    def __call__(self, work: Callable[[], Coroutine[Any, Any, None]], name: str) -> None: ...


@frozen(kw_only=True)
class SetupConfig:
    """The operator's bounds, in seconds and bytes, and where packages come from.

    `uv` is the installer: a program without any shared library, so that it runs in every image. `ca_bundle` holds the
    certificate authorities of the package index; `labels` are those of every container of this replica."""

    labels: Mapping[str, str]
    network: str
    timeout_seconds: float
    memory_bytes: int
    disk_bytes: int
    pids_max: int
    uv: Path
    index_url: str | None = None
    ca_bundle: Path | None = None


@frozen
class Setup:
    """Builds environments on an engine."""

    engine: Engine
    config: SetupConfig

    async def build(self, base: Image, recipe: Recipe, key: str, say: Say, later: Later) -> None:
        """Makes the image `pyexec-env:<key>` out of `base`; what is printed meanwhile is said. Nobody waits for the
        container's removal, which takes a second: that is done `later`.

        Raises `SetupFailed`, `SetupTimeout`, `ImageUnavailable`, `EngineError` or `Unavailable`; then there is none."""
        most = self.config.timeout_seconds + ENGINE_SECONDS
        with anyio.move_on_after(most) as building:
            container = await self.engine.start_setup(self._spec(base, recipe))
            try:
                python = await _python(container, base)
                await self._install(container, python, recipe, say)
                labels = {ENVIRONMENT_LABEL: key, BASE_SIZE_LABEL: str(base.size_bytes)}
                await container.commit(REPOSITORY, key, labels)
            finally:
                later(partial(_discard, container), name="remove a setup container")
        if building.cancelled_caught:
            raise SetupTimeout(f"the engine had not made the environment within {most:g} s")

    async def _install(self, container: SetupContainer, python: str, recipe: Recipe, say: Say) -> None:
        """All steps, and the end of the container; bounded in time and in what is written."""
        config = self.config
        written = await container.written_bytes()
        full = False

        async def watch_disk(working: anyio.CancelScope) -> None:
            nonlocal full
            while not full:
                await anyio.sleep(DISK_WATCH_SECONDS)
                full = await container.written_bytes() > written + config.disk_bytes
            working.cancel()

        failure: ExecutorError | None = None
        with anyio.move_on_after(config.timeout_seconds) as working:
            try:
                async with anyio.create_task_group() as beside:
                    beside.start_soon(watch_disk, working, name="watch the disk of a setup")
                    for step in self._steps(python, recipe):
                        await self._carry_out(container, step, say)
                    beside.cancel_scope.cancel()
                await container.finish()
            except* ExecutorError as errors:
                failure = first_error(errors)
        if failure is not None:
            raise failure
        if full:
            raise SetupFailed(f"setup wrote more than {config.disk_bytes >> 20} MiB and was ended")
        if working.cancelled_caught:
            raise SetupTimeout(f"setup took longer than {config.timeout_seconds:g} s and was ended")
        if await container.written_bytes() > written + config.disk_bytes:
            raise SetupFailed(f"setup wrote more than {config.disk_bytes >> 20} MiB")

    async def _carry_out(self, container: SetupContainer, step: "_Step", say: Say) -> None:
        told = _Tail()

        def hear(data: bytes) -> None:
            told.add(data)
            say(data)

        say(f"$ {step.shown}\n".encode())
        try:
            code = await container.execute(step.command, step.environment, hear)
        except EngineError as error:
            raise SetupFailed(f"{step.name} ended with its container: {error}") from error
        if code == 0:
            return
        reason = told.reason()
        if code == _KILLED_EXIT:
            reason = f"it was killed; setup may take {self.config.memory_bytes >> 20} MiB of memory"
        raise SetupFailed(f"{step.name} failed with exit code {code}: {reason}", exit_code=code)

    def _steps(self, python: str, recipe: Recipe) -> Iterator["_Step"]:
        for index, command in enumerate(recipe.pre_commands):
            yield _Step(f"pre_commands[{index}]", command, ("sh", "-c", command), self._environment())
        requirements = parse_requirements(recipe.requirements_txt or "")
        if requirements is None:
            return
        install = (_UV, "pip", "install", "--python", python, "--break-system-packages", "--compile-bytecode")
        quiet = ("--no-cache", "--no-config", "--no-progress", "--color", "never", "-r", _REQUIREMENTS)
        environment = {**self._environment(), "UV_PYTHON_DOWNLOADS": "never"}
        if self.config.index_url and not requirements.own_index:
            environment["UV_DEFAULT_INDEX"] = self.config.index_url
        shown = "uv pip install -r requirements.txt"
        yield _Step("installing requirements_txt", shown, (*install, *quiet), environment)

    def _environment(self) -> Mapping[str, str]:
        """What makes installers find the index and its authorities, and ask nobody anything."""
        found = {
            "HOME": "/root",
            "DEBIAN_FRONTEND": "noninteractive",
            "PIP_BREAK_SYSTEM_PACKAGES": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_NO_CACHE_DIR": "1",
            "PIP_ROOT_USER_ACTION": "ignore",
        }
        if self.config.index_url:
            found["PIP_INDEX_URL"] = self.config.index_url
        if self.config.ca_bundle:
            found["APT_CONFIG"] = _APT
            readers = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO")
            found |= dict.fromkeys(readers, _CA)
        return found

    def _spec(self, base: Image, recipe: Recipe) -> SetupSpec:
        config = self.config
        files: dict[str, bytes | Path] = {_UV: config.uv}
        if recipe.requirements_txt is not None:
            files[_REQUIREMENTS] = recipe.requirements_txt.encode()
        if config.ca_bundle is not None:
            files[_CA] = config.ca_bundle
            files[_APT] = f'Acquire::https::CaInfo "{_CA}";\n'.encode()
        seconds = math.ceil(START_SECONDS + config.timeout_seconds + CLEAN_UP_SECONDS)
        source = resources.files("pyexec.guest").joinpath("setup_init.py").read_text("utf-8")
        return SetupSpec(
            image=base.id,
            command=("python3", "-I", "-S", "-c", source, str(seconds)),
            labels=config.labels,
            files=files,
            memory_bytes=config.memory_bytes,
            cpu_shares=512,
            pids_max=config.pids_max,
            file_bytes_max=config.disk_bytes,
            network=config.network,
        )


@frozen
class _Step:
    """One command of a setup: its name in errors, what is shown of it, and what is run."""

    name: str
    shown: str
    command: Sequence[str]
    environment: Mapping[str, str]


class _Tail:
    """The end of what a step prints, where installers say what was wrong."""

    BYTES = 8 * 1024

    def __init__(self) -> None:
        self._data = b""

    def add(self, data: bytes) -> None:
        self._data = (self._data + data)[-self.BYTES :]

    def reason(self) -> str:
        """The lines that say why: from the first that calls itself an error, else the last."""
        lines = [line.strip() for line in self._data.decode("utf-8", "replace").splitlines() if line.strip()]
        signs = ("error", "e:", "\u00d7", "fatal")
        begin = next((n for n, line in enumerate(lines) if line.lower().startswith(signs)), -1)
        return " ".join(lines[begin:])[:500] or "it printed nothing"


async def _discard(container: SetupContainer) -> None:
    try:
        await container.remove()
    except ExecutorError as error:
        logger.error("a setup container is left behind until this server ends: %s", error)


async def _python(container: SetupContainer, base: Image) -> str:
    """The interpreter that the image's `python3` is."""
    name = base.names[0] if base.names else base.id
    line = b""
    with anyio.move_on_after(START_SECONDS):
        line = await container.read_line()
    try:
        facts = json.loads(line)
        version, executable = tuple(facts["python"]), str(facts["executable"])
    except (ValueError, KeyError, TypeError) as error:
        told = line.decode("utf-8", "replace")[:200] or "it did not say why"
        raise ImageUnavailable(f"the image {name!r} has no Python that can be set up: {told}") from error
    if version < OLDEST_PYTHON:
        found = ".".join(map(str, version))
        raise ImageUnavailable(f"the image {name!r} has Python {found}; 3.8 is the oldest that runs here")
    return executable
