"""Test requirements and commands: they run once, under limits, and errors quote the installer."""

import re
import secrets
import shlex
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest
from attrs import frozen

from tests.support.api import Api, api_of, form, parse_events
from tests.support.archives import script
from tests.support.cases import sampled
from tests.support.containers import deployment_of
from tests.support.images import docker, environments_of, own_image, remove_environments, remove_images
from tests.support.index import Index, own_network, running_index, wheel
from tests.support.server import SETUP_NETWORK, Server, running_server
from tests.support.setups import until_no_setups

GREET = "import greet; print(greet.WORD)"
BUILT = "reference=pyexec-env"
"""Leaves out images that only have the labels of environments."""


@pytest.fixture(scope="module")
def image(image: str) -> Iterator[str]:
    """Yield an image that only this file uses, so that no other server builds environments from it."""
    with own_image(image) as own:
        yield own


@pytest.fixture(scope="module")
def index() -> Iterator[Index]:
    wheels = [
        wheel("greet", "1.0", "WORD = 'hello'\n"),
        wheel("greet", "2.0", "WORD = 'servus'\n"),
        wheel("politely", "1.0", "import greet\nWORD = greet.WORD + ', please'\n", requires="greet"),
        wheel("rudely", "1.0", "", requires="greet<1.5"),
        wheel("modern", "1.0", "", requires="greet>=2"),
        wheel("greet", "3.0b1", "WORD = 'hej'\n"),
        ("constraints.txt", b"greet<2\n"),
        ("requirements.txt", b"politely==1.0\n"),
    ]
    with own_network() as network, running_index(network, *wheels) as serving:
        yield serving


@pytest.fixture(scope="module")
def installing(image: str, index: Index, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run a server that installs from the test's own index, under narrow limits."""
    settings = {
        "pip_index_url": index.url,
        "setup_network": index.network,
        "setup_timeout": "60",
        "setup_disk_mb": "128",
        "setup_memory_mb": "256",
        "max_concurrent": "12",
        "warm_pool": "0",
        "default_memory_mb": "64",
        "default_disk_mb": "16",
        "max_total_memory_mb": "20000",
        "max_memory_mb": "1024",
        "max_disk_mb": "1024",
    }
    with running_server(tmp_path_factory.mktemp("installing") / "data", image, **settings) as server:
        yield server
        log = server.log.read_text()
        assert "Traceback" not in log, log


@pytest.fixture
async def api(installing: Server) -> AsyncIterator[Api]:
    async with api_of(installing.url) as client:
        yield client


async def test_an_environment_is_built_once_and_reused(image: str, api: Api) -> None:
    first = await api.run(GREET, requirements_txt="greet==1.0\n")
    assert (first["stdout"], first["stderr"], first["status"]) == ("hello\n", "", "completed"), first
    assert first["timings_ms"]["setup"] > 0
    built = environments_of(image)
    second = await api.run(GREET, requirements_txt="greet==1.0\n")
    assert (second["stdout"], second["timings_ms"]["setup"]) == ("hello\n", 0)
    assert (environments_of(image), len(built)) == (built, 1)


async def test_extras_markers_hashes_and_options_work_as_in_pip(api: Api, index: Index) -> None:
    digest = index.sha256("politely-1.0-py3-none-any.whl")
    greet = index.sha256("greet-2.0-py3-none-any.whl")
    text = f"""\
# what a caller may write
--only-binary :all:
politely == 1.0 \\
    --hash=sha256:{digest}
greet == 2.0 ; python_version >= "3" --hash=sha256:{greet}
nowhere == 1 ; python_version < "3"
"""
    result = await api.run("import politely; print(politely.WORD)", requirements_txt=text)
    assert result["stdout"] == "servus, please\n", result


@sampled(
    ("text", "word"),
    [("\ufeff--pre\ngreet\n", "hej"), ("--pre\ngreet\n", "hej"), ("greet\n", "servus")],
)
async def test_pre_allows_pre_releases(api: Api, text: str, word: str) -> None:
    result = await api.run(GREET, requirements_txt=text)
    assert result["stdout"] == f"{word}\n", result


@pytest.mark.full
async def test_files_by_url_are_read(api: Api, index: Index) -> None:
    files = index.url.removesuffix("simple") + "files"
    text = f"-r {files}/requirements.txt\n--constraint={files}/constraints.txt\n"
    result = await api.run("import politely; print(politely.WORD)", requirements_txt=text)
    assert result["stdout"] == "hello, please\n", result


async def test_a_dependency_without_a_hash_is_refused_where_hashes_are_checked(
    api: Api, index: Index
) -> None:
    digest = index.sha256("politely-1.0-py3-none-any.whl")
    result = await api.run("1", requirements_txt=f"politely==1.0 --hash=sha256:{digest}\n")
    assert (result["status"], result["error_type"]) == ("failed", "setup_failed"), result
    assert "greet" in result["stderr"]


async def test_a_wrong_hash_fails_the_setup(api: Api) -> None:
    result = await api.run(GREET, requirements_txt=f"greet==1.0 --hash=sha256:{'0' * 64}\n")
    assert (result["status"], result["error_type"], result["exit_code"]) == ("failed", "setup_failed", 1)
    assert "hash" in result["stderr"].lower()


@sampled(
    ("text", "said"),
    [("there-is-no-such-thing\n", "there-is-no-such-thing"), ("rudely\nmodern\n", "modern")],
)
async def test_unresolvable_requirements_fail_the_setup(api: Api, text: str, said: str) -> None:
    result = await api.run("print('never')", requirements_txt=text)
    assert (result["status"], result["error_type"], result["exit_code"]) == ("failed", "setup_failed", 1)
    assert said in result["error"], result
    assert said in result["stderr"]
    assert result["stdout"] == ""
    assert "started_at" not in result


async def test_a_session_says_once_why_its_setup_failed(api: Api) -> None:
    """It has no execution with the output of the setup, so the error has the end of it, if it says more."""
    refused = await api.request(
        "POST", "/api/v1/sessions", json={"requirements_txt": "there-is-no-such-thing"}
    )
    assert (refused.status, refused.document["code"]) == (400, "setup_failed")
    assert refused.document["error"].startswith("installing the requirements failed with exit code ")
    assert refused.document["error"].count("there-is-no-such-thing was not found") == 1
    assert not re.search(r"\n|\$ uv", refused.document["error"])
    refused = await api.request(
        "POST", "/api/v1/sessions", json={"pre_commands": ["echo first; echo last; exit 3"]}
    )
    assert refused.document["error"] == (
        "pre_commands[0] failed with exit code 3: last; the output of the setup ends with:\n"
        "$ echo first; echo last; exit 3\nfirst\nlast"
    )


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("-e .", 1, "editable"),
        ("greet\n-r other.txt", 2, "a local file"),
        ("-rother.txt", 1, "a local file"),
        ("--requirement=other.txt", 1, "a local file"),
        ("-c constraints.txt", 1, "a local file"),
        ("--prefer-binary\ngreet", 1, "--prefer-binary"),
        ("greet==1.0 --hash=sha256:00\npolitely==1.0", 2, "needs a --hash, because line 1 has a --hash"),
        ("--require-hashes\ngreet==1.0", 2, "needs a --hash"),
        ("./package", 1, "local path"),
        ("/srv/package", 1, "local path"),
        ("greet @ file:///srv/greet.whl", 1, "local path"),
        ("greet-1.0-py3-none-any.whl", 1, "local path"),
        ("--find-links /srv/wheels", 1, "local directory"),
        ("--no-such-option", 1, "allowed are"),
        ("greet ==", 1, "greet"),
    ],
)
async def test_unsupported_requirements_are_refused(api: Api, text: str, line: int, said: str) -> None:
    answer = await api.eval({"code": "1", "requirements_txt": text})
    assert (answer.status, answer.document["field"]) == (400, "requirements_txt")
    assert f"line {line} " in answer.document["error"]
    assert said in answer.document["error"]


LOCAL_PACKAGE = """
mkdir -p /tmp/greet/DEBIAN /tmp/greet/usr/bin && cd /tmp && printf '#!/bin/sh\\necho hello\\n' > greet/usr/bin/greet
printf 'Package: greet\\nVersion: 1\\nArchitecture: all\\nMaintainer: x\\nDescription: x\\n' > greet/DEBIAN/control
chmod 755 greet/usr/bin/greet && dpkg-deb --build greet && apt-get install --yes ./greet.deb
"""
"""Installs a Debian package without a network."""


async def test_commands_run_as_root_in_order_and_do_not_print_to_the_program_output(api: Api) -> None:
    """They may install Debian packages, and see no environment variables of the run."""
    commands = ["id -u > /etc/who; echo noise; echo more >&2", "cat /etc/who /etc/who > /etc/twice"]
    source = """
import os, subprocess
print(open('/etc/twice').read().split(), input())
print(open('/seen').read().count('SECRET'), os.environ['SECRET'])
print(subprocess.run(['greet'], capture_output=True, text=True).stdout, end='')
"""
    result = await api.run(
        source, pre_commands=[*commands, "env > /seen", LOCAL_PACKAGE], stdin="in", env_vars=["SECRET=word"]
    )
    assert (result["stdout"], result["stderr"]) == ("['0', '0'] in\n0 word\nhello\n", ""), result


async def test_a_command_that_fails_ends_the_run(image: str, api: Api) -> None:
    before = environments_of(image)
    result = await api.run(
        "print('never')", pre_commands=["echo fine", "echo oh no >&2; exit 7", "echo later"]
    )
    assert (result["status"], result["error_type"], result["exit_code"]) == ("failed", "setup_failed", 7)
    assert result["error"] == "pre_commands[1] failed with exit code 7: oh no"
    assert result["stderr"] == "$ echo fine\nfine\n$ echo oh no >&2; exit 7\noh no\n"
    assert environments_of(image) == before


@sampled(
    "command", ["rm -rf $(python3 -c 'import os; print(os.__file__[:-5])')", "rm -f $(which -a python3)"]
)
async def test_commands_that_break_python_are_named_as_the_cause(image: str, api: Api, command: str) -> None:
    before = environments_of(image)
    result = await api.run("print('never')", pre_commands=[command])
    assert (result["status"], result["error_type"]) == ("failed", "setup_failed"), result
    assert result["error"].startswith("starting python3 after the pre_commands failed with")
    assert environments_of(image) == before


@pytest.mark.parametrize(
    ("message", "advice"),
    [
        (
            "invalid peer certificate: UnknownIssuer",
            "; the server's operator can add certificate authorities with PYEXEC_CA_BUNDLE",
        ),
        (
            "Git executable not found. Ensure that Git is installed and available.",
            " Name an archive instead, such as https://host/archive/NAME.tar.gz, or an image with git.",
        ),
        (
            "[Errno 2] No such file or directory: 'x86_64-linux-gnu-g++'",
            "; the package is built from source, and the image has no compiler: install one with"
            " pre_commands, such as `apt-get update && apt-get install -y gcc g++ python3-dev`",
        ),
    ],
)
async def test_a_message_of_the_installer_gets_advice(api: Api, message: str, advice: str) -> None:
    result = await api.run("", pre_commands=[f'echo "error: {message}"; exit 2'])
    assert result["error"].endswith(f"{message}{advice}")


async def test_the_reason_at_the_end_of_a_long_message_is_kept(api: Api) -> None:
    """A failed build begins with the name of the package, and ends with the reason."""
    hint = "hint: Build failures usually indicate a problem with the package or the build environment"
    lines = ["error: Failed to build `a==1`", *["running build_ext"] * 99, "NameError: no C", "", hint]
    printed = shlex.quote("\n".join(lines))
    result = await api.run("", pre_commands=[f"echo {printed}; exit 1"])
    assert "exit code 1: error: Failed to build `a==1` running" in result["error"]
    assert result["error"].endswith("running build_ext NameError: no C")
    assert len(result["error"]) < 600


async def test_setup_that_takes_too_long_is_ended(image: str, tmp_path: Path) -> None:
    with running_server(tmp_path / "data", image, **SETUP_NETWORK, setup_timeout="1") as server:
        async with api_of(server.url) as api:
            result = await api.run("print('never')", pre_commands=["echo begun; sleep 600"])
    assert (result["status"], result["error_type"]) == ("failed", "setup_timeout")
    assert "1 s" in result["error"]
    assert "begun" in result["stderr"]


async def test_setup_that_fills_the_disk_is_ended(api: Api) -> None:
    one_file = await api.run("", pre_commands=["head -c 200M /dev/zero > /big"])
    assert one_file["error_type"] == "setup_failed", one_file
    many = "i=0; while [ $i -lt 400 ]; do head -c 1M /dev/zero > /file$i; i=$((i+1)); done; sleep 60"
    result = await api.run("", pre_commands=[many])
    assert (result["error_type"], result["error"]) == (
        "setup_failed",
        "setup wrote more than 128 MiB and was stopped",
    )


async def test_setup_that_takes_too_much_memory_is_ended(api: Api) -> None:
    result = await api.run("", pre_commands=["python3 -c 'x = bytearray(512 << 20)'"])
    assert (result["error_type"], result["exit_code"]) == ("setup_failed", 137)
    assert "256 MiB" in result["error"]


async def test_a_setup_runs_with_restricted_rights(api: Api) -> None:
    probe = "grep -E 'CapEff|NoNewPrivs' /proc/self/status; ls /.pyexec; ls /var/run/docker.sock; mount -t tmpfs x /mnt"
    result = await api.run("", pre_commands=[f"{probe}; exit 1"])
    lines = result["stderr"].splitlines()
    capabilities = int(next(line for line in lines if line.startswith("CapEff")).split()[1], 16)
    kept = {0, 1, 3, 4, 6, 7, 31}  # of linux/capability.h: files of any owner, setuid, setgid, setfcap
    assert {bit for bit in range(64) if capabilities >> bit & 1} == kept
    assert "NoNewPrivs:\t1" in lines
    assert "denied" in result["stderr"]
    assert any("docker.sock" in line and "No such file" in line for line in lines)


async def test_a_setup_has_a_bounded_number_of_processes_and_threads(api: Api) -> None:
    attack = """python3 - <<'END'
import os, threading, time
threading.stack_size(65536)
started = 0
try:
    while started < 1100:
        threading.Thread(target=time.sleep, args=(60,)).start()
        started += 1
except RuntimeError:
    pass
os.write(2, b'%d' % started)
os._exit(1)
END"""
    result = await api.run("", pre_commands=[attack])
    assert 900 < int(result["stderr"].split()[-1]) < 1024, result


async def test_the_installer_is_not_in_the_environment(api: Api) -> None:
    result = await api.run("import os; print(os.path.exists('/.pyexec'))", requirements_txt="greet==1.0")
    assert result["stdout"] == "False\n"


async def test_an_environment_keeps_its_images_own_configuration(api: Api, image: str) -> None:
    own = f"pyexec-test-configured:{secrets.token_hex(4)}"
    changes = ["ENV COLOUR=green", "WORKDIR /srv", "USER 1234:5678", 'ENTRYPOINT ["/bin/echo"]', 'CMD ["hi"]']
    options = [word for change in changes for word in ("--change", change)]
    (container,) = docker("create", image)
    before = set(environments_of(image))
    try:
        docker("commit", *options, container, own)
        result = await api.run(
            "import os; print(os.environ['COLOUR'])", docker_image=own, pre_commands=["true"]
        )
        assert result["stdout"] == "green\n", result
        (made,) = set(environments_of(image)) - before
        kept = "{{json .Config.Env}} {{.Config.WorkingDir}} {{.Config.User}} {{.Config.Entrypoint}} {{.Config.Cmd}}"
        assert docker("inspect", "--format", kept, made) == docker("inspect", "--format", kept, own)
        mounts = "{{json .Config.Volumes}} {{json .Config.ExposedPorts}}"
        assert docker("inspect", "--format", mounts, made) == docker("inspect", "--format", mounts, own)
    finally:
        docker("rm", container)
        remove_environments(image)  # before their base image
        remove_images(f"reference={own}")


async def test_many_first_runs_of_one_environment_build_it_once(image: str, api: Api) -> None:
    results: list[Any] = []
    before = set(environments_of(image))

    async def run() -> None:
        results.append(await api.run(GREET, requirements_txt="greet==2.0\n"))

    async with anyio.create_task_group() as tasks:
        for number in range(10):
            tasks.start_soon(run, name=f"run {number}")
    assert [result["stdout"] for result in results] == ["servus\n"] * 10
    assert len(set(environments_of(image)) - before) == 1
    said = [
        event.output for event in await api.all_events(results[0]["execution_id"]) if event.name == "setup"
    ]
    for result in results:
        events = await api.all_events(result["execution_id"])
        assert b"".join(event.output for event in events if event.name == "setup") == b"".join(said)


@pytest.mark.claims
async def test_a_kill_cancels_a_build_that_no_other_run_needs(api: Api, installing: Server) -> None:
    slow = ["echo begun; sleep 3; echo done > /done"]
    ids = [await api.accepted("print(open('/done').read())", pre_commands=slow) for _ in range(2)]
    async with api.events(ids[1]) as events:
        async for event in events:
            if event.name == "setup" and b"begun" in event.output:
                break
    assert (await api.kill(ids[0])).document == {"status": "killed"}
    assert (await api.ended(ids[1]))["stdout"] == "done\n\n"
    alone = await api.accepted("", pre_commands=["echo begun; sleep 600"])
    async with api.events(alone) as events:
        async for event in events:
            if event.name == "setup" and b"begun" in event.output:
                break
    assert (await api.kill(alone)).document == {"status": "killed"}
    await until_no_setups(installing)


async def test_events_contain_the_output_of_the_setup(api: Api) -> None:
    metadata = {"pre_commands": ["echo one"], "requirements_txt": "greet==1.0"}
    headers = {"Accept": "text/event-stream"}
    request = api.session.post("/api/v1/exec/sync", data=form(script(GREET), metadata), headers=headers)
    async with request as response:
        events = [event async for event in parse_events(response)]
    names = [event.name for event in events]
    steps = ["submitted", "claimed", "preparing", "running", "finished"]
    assert [name for name in names if name in steps] == steps
    assert set(names[names.index("preparing") + 1 : names.index("running")]) == {"setup"}
    said = b"".join(event.output for event in events if event.name == "setup")
    assert said.startswith(b"$ echo one\none\n$ uv pip install")
    assert b"greet==1.0" in said
    output = [event for event in events if event.name == "output"]
    assert b"".join(event.output for event in output) == b"hello\n"
    execution_id = events[0].data["execution_id"]
    for number, event in enumerate([None, *events]):
        rest = await api.all_events(execution_id, after=event and event.id)
        assert [e.name for e in rest if e.name in steps] == [
            e.name for e in events[number:] if e.name in steps
        ]
        assert content(rest) == content(events[number:])


def content(events: list[Any]) -> bytes:
    return b"".join(event.output for event in events if event.name in ("setup", "output"))


async def test_logs_follow_a_setup_that_fails(api: Api) -> None:
    execution_id = await api.accepted("print('never')", pre_commands=["echo oh no; exit 3"])
    async with api.session.get(f"/api/v1/executions/{execution_id}/logs?follow=1") as response:
        assert await response.read() == b"$ echo oh no; exit 3\noh no\n"


def from_index(index: Index) -> dict[str, str]:
    return {"pip_index_url": index.url, "setup_network": index.network}


async def test_without_a_setup_network_nothing_is_installed(image: str, tmp_path: Path) -> None:
    with running_server(tmp_path / "data", image, setup_network="none") as server:
        async with api_of(server.url) as api:
            for field, value in {"requirements_txt": "greet", "pre_commands": ["true"]}.items():
                answer = await api.sync(script("print()"), {field: value})
                assert (answer.status, answer.document["field"]) == (400, field)
                assert "PYEXEC_SETUP_NETWORK" in answer.document["error"]
            assert (await api.run("print('fine')"))["stdout"] == "fine\n"
            inline = "# /// script\n# dependencies = ['greet']\n# ///\n"
            answer = await api.eval({"code": inline})
            assert (answer.status, answer.document["field"]) == (400, "code")
            assert "PYEXEC_SETUP_NETWORK" in answer.document["error"]
            without = inline.replace("'greet'", "") + "print('fine')"
            assert (await api.run(without))["stdout"] == "fine\n"


async def test_the_run_after_a_setup_has_no_network(api: Api, index: Index) -> None:
    host, port = index.url.removeprefix("http://").partition("/")[0].split(":")
    source = f"import greet, socket\nsocket.create_connection(({host!r}, {port}), 5)"
    result = await api.run(source, requirements_txt="greet==1.0")
    assert (result["exit_code"], result["error_type"]) == (1, "OSError"), result


@frozen
class Restarted:
    """A server on the data of another one, which was killed while it built an environment."""

    server: Server
    building: str
    """The id of the execution for which it built."""
    environments: Sequence[str]
    """The ids of the images that the first server built."""
    forged: str
    """The name of an image with the labels of the servers' containers."""
    by_hand: Mapping[str, str]
    """The containers that a user has started, by image."""


@pytest.fixture(scope="module")
def restarted(image: str, index: Index, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Restarted]:
    data = tmp_path_factory.mktemp("restarted") / "data"
    with running_server(data, image, **from_index(index), warm_pool="0") as first:
        building = anyio.run(build, first.url)
        first.process.kill()
        first.process.wait()
    environments = environments_of(image, BUILT)
    forged = f"pyexec-test-forged:{secrets.token_hex(4)}"
    forge(image, forged, deployment_of(data))
    by_hand: dict[str, str] = {}
    try:
        for each in (environments[0], forged):
            (by_hand[each],) = docker("run", "--detach", "--network", "none", each, "sleep", "600")
        with running_server(data, image, **from_index(index), warm_pool="1", env_max_age="0") as second:
            yield Restarted(second, building, environments, forged, by_hand)
    finally:
        for container in by_hand.values():
            docker("rm", "--force", container)
        remove_images(f"reference={forged}")


async def build(url: str) -> str:
    """Build an environment, and begin to build another one. Return the id of the execution that needs it."""
    async with api_of(url) as api:
        assert (await api.run(GREET, requirements_txt="greet==1.0"))["stdout"] == "hello\n"
        execution_id = await api.accepted("print('never')", pre_commands=["echo begun; sleep 600"])
        async with api.events(execution_id) as events:
            async for event in events:
                if event.name == "setup" and b"begun" in event.output:
                    break
    return execution_id


def forge(image: str, name: str, deployment: str) -> None:
    """Make an image with the labels of the containers of a deployment."""
    (engine,) = docker("info", "--format", "{{.ID}}")
    labels = {"pyexec.deployment": deployment, "pyexec.engine": engine, "pyexec.replica": "rep_gone"}
    labels |= {"pyexec.environment": "0", "pyexec.base-size": "9" * 18}
    text = "".join(f"LABEL {key}={value}\n" for key, value in labels.items())
    docker("build", "--network=none", "--quiet", "--tag", name, "-", stdin=f"FROM {image}\n{text}")


async def test_setup_containers_of_a_killed_server_are_removed(restarted: Restarted) -> None:
    async with api_of(restarted.server.url) as api:
        assert (await api.kill(restarted.building)).status == 200
    await until_no_setups(restarted.server)


async def test_an_environment_survives_a_restart(image: str, restarted: Restarted) -> None:
    async with api_of(restarted.server.url) as api:
        result = await api.run(GREET, requirements_txt="greet==1.0")
    assert result["stdout"] == "hello\n", result
    assert environments_of(image, BUILT) == restarted.environments


async def test_containers_that_a_user_started_are_not_removed(restarted: Restarted) -> None:
    """A container inherits the labels of its image, and anyone can make an image."""
    async with api_of(restarted.server.url) as api:
        assert (await api.run("print(1)", docker_image=restarted.forged))["stdout"] == "1\n"
    for container in restarted.by_hand.values():
        assert docker("inspect", "--format", "{{.State.Running}}", container) == ["true"]


async def test_an_unpinned_environment_is_rebuilt_after_its_maximum_age(
    image: str, restarted: Restarted
) -> None:
    async with api_of(restarted.server.url) as api:
        for text, is_rebuilt in {"greet": True, "greet==2.0": False}.items():
            built = []
            for _ in range(2):
                assert (await api.run(GREET, requirements_txt=text))["stdout"] == "servus\n"
                built.append(environments_of(image, BUILT)[0])  # the newest
            assert (built[0] != built[1]) == is_rebuilt
