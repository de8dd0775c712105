"""Test that the failure of a setup names the field of the request that the failed step carries out."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from aiodocker.exceptions import DockerError

from pyexec.adapters.docker.client import translate
from pyexec.domain.environment import Recipe
from pyexec.errors import EngineError, ExecutorError, ImageUnavailable, SetupFailed, SetupTimeout
from pyexec.sandbox.environments import setup_watch
from pyexec.sandbox.environments.commit import commit
from pyexec.sandbox.environments.setup import Setup, SetupConfig
from tests.services.images import image

RECIPE = Recipe(pre_commands=("true", "make"), requirements_txt="numpy")
DISK_BYTES = 1 << 20


class Container:
    """A setup container in which `step` fails: it calls `fail`."""

    def __init__(self, step: str, fail: Callable[["Container"], Any]) -> None:
        self.step = step
        self.fail = fail
        self.written = 0
        self.oom_event: bool | None = False
        """None if the engine does not answer."""
        self.lines = [b'{"python": [3, 12, 0], "executable": "/usr/bin/python3"}']

    async def read_line(self) -> bytes:
        if not self.lines:
            await anyio.sleep_forever()
        return self.lines.pop()

    async def execute(
        self, command: Sequence[str], _environment: Mapping[str, str], on_output: Callable[[bytes], None]
    ) -> int:
        if self.step not in command:
            return 0
        on_output(b"error: it failed\n")
        return int(await self.fail(self))

    async def has_oom_event(self) -> bool:
        if self.oom_event is None:
            raise EngineError("the engine does not answer")
        return self.oom_event

    async def written_bytes(self) -> int:
        return self.written

    async def finish(self) -> None:
        self.lines.append(b"")

    async def remove(self) -> None:
        """Do nothing: there is no engine."""


async def exit_with_error(_: Container) -> int:
    return 1


async def lose_the_container(_: Container) -> int:
    raise EngineError("the container ended")


async def fill_the_disk(container: Container) -> int:
    container.written = 2 * DISK_BYTES
    return int(await anyio.sleep_forever())


async def hang(_: Container) -> int:
    return int(await anyio.sleep_forever())


async def failure_of(container: Container, kind: type[ExecutorError] = SetupFailed) -> Any:
    class Engine:
        async def start_setup(self, _spec: object) -> Container:
            return container

    config = SetupConfig(
        labels={},
        network="none",
        timeout_seconds=0.2,
        memory_bytes=1 << 30,
        disk_bytes=DISK_BYTES,
        pids_max=1,
        uv=Path("uv"),
        index=partial(nullcontext, None),
    )
    engine: Any = Engine()
    with pytest.raises(kind) as caught:
        await Setup(engine, config).build(image("base"), RECIPE, "key", lambda _: None, lambda *_, **__: None)
    return caught.value


@pytest.mark.parametrize(("step", "field"), [("make", "pre_commands"), ("install", "requirements_txt")])
@pytest.mark.parametrize("fail", [exit_with_error, lose_the_container, fill_the_disk, hang])
async def test_a_failure_names_its_field(
    step: str, field: str, fail: Callable[[Container], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup_watch, "COMPARE_SECONDS", 0.01)
    failure = await failure_of(Container(step, fail))
    assert failure.field == field
    assert isinstance(failure, SetupTimeout) == (fail is hang)


async def exit_with_137(_: Container) -> int:
    return 137


async def run_out_of_memory(container: Container) -> int:
    container.oom_event = True
    return 137


async def be_killed_without_an_engine(container: Container) -> int:
    container.oom_event = None
    return 137


@pytest.mark.parametrize(
    ("fail", "reason"),
    [
        (exit_with_137, "error: it failed"),
        (be_killed_without_an_engine, "error: it failed"),
        (run_out_of_memory, "it ran out of memory; the memory limit of a setup is 1024 MiB"),
    ],
)
async def test_only_a_step_that_the_kernel_has_killed_ran_out_of_memory(
    fail: Callable[[Container], Any], reason: str
) -> None:
    failure = await failure_of(Container("make", fail))
    assert str(failure) == f"pre_commands[1] failed with exit code 137: {reason}"
    assert failure.exit_code == 137


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 60_000,
        b'{"python": ["a"], "executable": "x"}',
        b'{"python": [[]], "executable": "x"}',
        b'{"python": [Infinity], "executable": "x"}',
        b'{"python": {}, "executable": "x"}',
        b'{"python": [3, 7], "executable": "x"}',
    ],
)
async def test_an_image_with_a_lying_interpreter_is_rejected(line: bytes) -> None:
    container = Container("make", hang)
    container.lines = [line]
    assert "the image" in str(await failure_of(container, ImageUnavailable))


REFUSED = 'Error processing tar file(exit status 1): failed to mknod("/opt", S_IFCHR, 0)'


async def failure_of_commit(message: str) -> Exception:
    class Refusing:
        async def commit(self, *_: object) -> None:
            raise translate(DockerError(500, message))

    container: Any = Refusing()
    with pytest.raises((SetupFailed, EngineError)) as caught:
        await commit(container, "tag", "key", RECIPE)
    return caught.value


async def test_files_that_docker_cannot_store_are_a_failure_of_the_setup() -> None:
    """A file with the name `.wh.` is one, and each file if the image has as many layers as Docker allows. After an
    error of the engine, the server repeats the setup."""
    for message in (f"{REFUSED}: file exists", "max depth exceeded"):
        failure = await failure_of_commit(message)
        assert isinstance(failure, SetupFailed)
        assert failure.field == "pre_commands"
    for message in (f"{REFUSED}: no space left on device", "the engine does not answer"):
        assert isinstance(await failure_of_commit(message), EngineError)
