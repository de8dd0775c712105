"""Test scripts with inline metadata: their dependencies are installed, and an image with a fitting Python is used."""

import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.api import Api, api_of
from tests.support.archives import END, member, tar_of
from tests.support.images import (
    OWNER_LABEL,
    docker,
    environments_of,
    own_image,
    remove_environments,
    remove_images,
)
from tests.support.index import Index, own_network, running_index, wheel
from tests.support.server import Server, running_server

GREET = "import greet; print(greet.WORD)\n"
ABSENT = "try:\n    import greet\nexcept ImportError:\n    print('absent')\n"
VERSION = "import sys; print('%d.%d' % sys.version_info[:2])\n"


def block(*lines: str) -> str:
    return "".join(f"# {line}\n" for line in ("/// script", *lines, "///"))


NEEDS_GREET = block('dependencies = ["greet==1.0"]')
NEEDS_FUTURE = block('requires-python = ">=3.99"')


@pytest.fixture(scope="module")
def image(image: str) -> Iterator[str]:
    with own_image(image) as own:
        yield own
        remove_environments(own)


@pytest.fixture(scope="module")
def index() -> Iterator[Index]:
    wheels = [wheel("greet", "1.0", "WORD = 'hello'\n"), wheel("greet", "2.0", "WORD = 'servus'\n")]
    with own_network() as network, running_index(network, *wheels) as serving:
        yield serving


@pytest.fixture(scope="module")
def installing(image: str, index: Index, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {"pip_index_url": index.url, "setup_network": index.network, "allowed_images": image}
    with running_server(tmp_path_factory.mktemp("inline") / "data", image, **settings) as server:
        yield server
        log = server.log.read_text()
        assert "Traceback" not in log, log


@pytest.fixture
async def api(installing: Server) -> AsyncIterator[Api]:
    async with api_of(installing.url) as client:
        yield client


async def evaluated(api: Api, **body: Any) -> Any:
    answer = await api.eval(body)
    assert answer.status == 200, answer.document
    return answer.document


async def test_the_dependencies_are_installed_once_as_the_same_requirements_are(api: Api, image: str) -> None:
    source = NEEDS_GREET + GREET
    first = await api.run(source)
    assert (first["stdout"], first["stderr"], first["status"]) == ("hello\n", "", "completed"), first
    built = environments_of(image)
    events = await api.all_events(first["execution_id"])
    setup = b"".join(event.output for event in events if event.name == "setup").decode()
    assert "greet==1.0" in setup
    again = [
        await api.run(GREET, requirements_txt="greet==1.0\n"),
        await evaluated(api, code=source),
        await evaluated(api, files=[{"name": "a.txt", "content": ""}, {"name": "job.py", "content": source}]),
        await api.ended(await api.accepted(source)),
    ]
    assert [(each["stdout"], each["timings_ms"]["setup"]) for each in again] == [("hello\n", 0)] * 4
    assert environments_of(image) == built


async def test_the_block_of_the_file_that_runs_counts(api: Api) -> None:
    link = member("main.py", kind=b"2", target="lib/app.py")
    archives = {
        "named": (tar_of({"main.py": "", "jobs/a.py": NEEDS_GREET + GREET}), {"entrypoint": "jobs/a.py"}),
        "detected": (tar_of({"a.py": NEEDS_GREET + GREET, "data.csv": b"1,2\n"}), {}),
        "linked": (member("lib/app.py", NEEDS_GREET + GREET) + link + END, {}),
        "first": (tar_of({"main.py": NEEDS_GREET + GREET, "data.bin": bytes(1 << 20)}), {}),
        "first and named": (
            tar_of({"a.py": NEEDS_GREET + GREET, "data.bin": bytes(1 << 20)}),
            {"entrypoint": "a.py"},
        ),
        "replaced": (tar_of({"main.py": ""})[:-1024] + member("main.py", NEEDS_GREET + GREET) + END, {}),
    }
    for name, (archive, metadata) in archives.items():
        answer = await api.sync(archive, metadata)
        assert (answer.status, answer.document.get("stdout")) == (200, "hello\n"), (name, answer.document)
    ignored = (
        tar_of({"main.py": ABSENT, "other.py": NEEDS_GREET}),
        tar_of({"data.bin": bytes(1 << 20), "main.py": NEEDS_GREET + ABSENT}),
        tar_of({"a.py": NEEDS_GREET + ABSENT, "data.bin": bytes(1 << 20)}),
    )
    for archive in ignored:
        answer = await api.sync(archive)
        assert (answer.status, answer.document.get("stdout")) == (200, "absent\n"), answer.document


async def test_requirements_of_the_request_win(api: Api) -> None:
    result = await api.run(NEEDS_GREET + GREET, requirements_txt="greet==2.0\n")
    assert result["stdout"] == "servus\n", result
    for text in ("", " \n"):
        assert (await api.run(NEEDS_GREET + GREET, requirements_txt=text))["stdout"] == "hello\n"
    assert (await api.run(NEEDS_GREET + ABSENT, requirements_txt="# none\n"))["stdout"] == "absent\n"


async def test_it_can_be_turned_off(api: Api) -> None:
    broken = block("dependencies = [") + ABSENT
    for source in (NEEDS_GREET + ABSENT, broken, NEEDS_FUTURE + ABSENT):
        assert (await api.run(source, inline_requirements=False))["stdout"] == "absent\n"
        assert (await evaluated(api, code=source, inline_requirements=False))["stdout"] == "absent\n"


@pytest.mark.full
async def test_commands_of_the_request_run_before_the_installation(api: Api) -> None:
    result = await api.run(NEEDS_GREET + GREET, pre_commands=["echo run > /tmp/x"])
    assert result["stdout"] == "hello\n", result


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (f"x = 1\n{block('dependencies = [,]')}", "line 3: not TOML"),
        (f"{NEEDS_GREET}\n{NEEDS_GREET}", "line 5: there is a second script block"),
        (
            "# /// script\n# a = 1\n\nx = 1\n",
            "the script block that starts at line 1 is not closed by `# ///`",
        ),
        (block(f"requires-python = '>={'9' * 4000}'"), "at most 256 characters and 16 clauses"),
        (block('dependencies = "greet"'), "dependencies must be a list of strings"),
        (block('dependencies = ["-i https://example.org"]'), "options are not allowed here"),
        (block('requires-python = "new"'), "requires-python must be a version specifier"),
        (NEEDS_FUTURE, "requires-python is '>=3.99', but "),
    ],
)
async def test_what_cannot_be_carried_out_is_refused(api: Api, source: str, said: str) -> None:
    await api.run("")  # from now on, the server knows the version of Python in the image
    before = await api.newest()
    answers = {
        "code": await api.eval({"code": source}),
        "files": await api.eval({"files": [{"name": "a.py", "content": source}]}),
        "tar": await api.sync(tar_of({"main.py": source})),
    }
    answers["tar "] = await api.submit(tar_of({"main.py": source}))
    for field, answer in answers.items():
        assert (answer.status, answer.document["field"]) == (400, field.strip()), answer.document
        assert said in answer.document["error"]
        assert "inline_requirements: false" in answer.document["error"]
    assert await api.newest() == before


async def test_a_key_names_the_same_execution_again(api: Api) -> None:
    key = {"Idempotency-Key": secrets.token_hex(8)}
    source = tar_of({"main.py": NEEDS_GREET + GREET})
    first = await api.sync(source, {}, headers=key)
    again = await api.sync(source, {}, headers=key)
    assert first.document["execution_id"] == again.document["execution_id"]
    other = await api.sync(source, {"inline_requirements": False}, headers=key)
    assert other.status == 409


async def test_an_image_that_fits_is_chosen_and_one_that_does_not_is_refused(
    image: str, installing: Server, tmp_path: Path
) -> None:
    """The first image claims to have Python 3.98: until one of its sandboxes has started, only the image can tell."""
    async with api_of(installing.url) as api:
        version = (await api.run(VERSION))["stdout"].strip()
    claiming = f"{image}-claims"
    (owner,) = docker("inspect", "--format", f'{{{{index .Config.Labels "{OWNER_LABEL}"}}}}', image)
    build = (
        "build",
        "--label",
        f"{OWNER_LABEL}={owner}",
        "--network=none",
        "--quiet",
        "--tag",
        claiming,
        "-",
    )
    docker(*build, stdin=f"FROM {image}\nENV PYTHON_VERSION=3.98.1\n")
    fitting = block(f'requires-python = "=={version}.*"') + VERSION
    claimed = block('requires-python = ">=3.98"') + VERSION
    try:
        settings = {"allowed_images": f"nothing*, {image}", "warm_pool": "0"}
        with running_server(tmp_path / "data", claiming, **settings) as server:
            async with api_of(server.url) as api:
                assert (await api.run(fitting))["stdout"] == f"{version}\n"
                named = await api.sync(tar_of({"main.py": fitting}), {"docker_image": claiming})
                assert named.status == 400
                assert "has Python 3.98.1" in named.document["error"]
                later = await api.ended(await api.accepted(claimed))
                assert (later["status"], later["error_type"]) == ("failed", "image_unavailable"), later
                assert (
                    f"requires Python >=3.98, but the image '{claiming}' has Python {version}"
                    in later["error"]
                )
                known = await api.sync(tar_of({"main.py": claimed}))
                assert (known.status, known.document["field"]) == (400, "tar")
    finally:
        remove_images(f"reference={claiming}")
