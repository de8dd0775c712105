"""Test what a program finds around it: its user, packages that it installs, and what its setup left in its home."""

import io
import json
import secrets
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pip
import pytest

from tests.support.api import Api
from tests.support.archives import tar_of
from tests.support.cases import sampled
from tests.support.images import environments_of
from tests.support.index import wheel

USER = """
import getpass, grp, json, os, pwd, subprocess
own = pwd.getpwuid(os.getuid())
print(json.dumps({
    "names": [getpass.getuser(), own.pw_name, grp.getgrgid(os.getgid()).gr_name]
    + [os.environ["USER"], os.environ["LOGNAME"]],
    "homes": [own.pw_dir, os.path.expanduser("~"), os.path.expanduser("~sandbox")],
    "tools": subprocess.run("whoami; id -un; id -gn", shell=True, capture_output=True, text=True).stdout.split(),
    "others": sorted(entry.pw_name for entry in pwd.getpwall()),
    "write": os.access("/etc/passwd", os.W_OK) or os.access("/etc/group", os.W_OK),
}))
"""
PIP_INSTALL = """
import subprocess, sys
before = list(sys.path)
pip = [sys.executable, "-W", "ignore", "pip.zip/pip"]
install = [*pip, "install", "--no-index", "--quiet", "greet-1.0-py3-none-any.whl"]
print(subprocess.run(install, capture_output=True, text=True).stderr, end="")
import greet
print(greet.WORD, sys.path == before)
child = [sys.executable, "-c", "import greet; print(greet.WORD)"]
print(subprocess.run(child, capture_output=True, text=True).stdout, end="")
import os
print(sorted(os.listdir()))
"""
LISTING = """
import json, os
print(json.dumps(sorted(os.path.join(root, name)[2:] for root, _, names in os.walk(".") for name in names)))
"""


@pytest.mark.parametrize("config", [{}, {"network_disabled": False}], ids=["without network", "with network"])
async def test_the_user_of_a_program_has_a_name_and_a_home(api: Api, config: dict[str, Any]) -> None:
    result = await api.run(USER, config=config)
    found = json.loads(result["stdout"])
    assert found["names"] == ["sandbox"] * 5
    assert found["homes"] == ["/work"] * 3
    assert found["tools"] == ["sandbox"] * 3
    assert {"sandbox", "root", "www-data"} <= set(found["others"])
    assert not found["write"]


async def test_variables_of_the_request_replace_the_name(api: Api) -> None:
    source = "import getpass, os; print(getpass.getuser(), os.environ['LOGNAME'])"
    result = await api.run(source, env_vars=["USER=me", "LOGNAME=myself"])
    assert result["stdout"] == "myself myself\n"


@pytest.fixture(scope="module")
def made(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """Makes images like the default one, each changed by a shell command."""
    names: list[str] = []

    def make(command: str) -> str:
        context = tmp_path_factory.mktemp("image")
        (context / "Dockerfile").write_text(f"FROM {image}\nRUN {command}\n")
        names.append(f"pyexec-test-users:{secrets.token_hex(4)}")
        build = ["docker", "build", "-q", "--network", "none", "-t", names[-1], context]
        subprocess.run(build, check=True, capture_output=True)
        return names[-1]

    yield make
    subprocess.run(["docker", "rmi", "-f", *names], check=True, capture_output=True)


@sampled(
    ("command", "others"),
    [
        pytest.param(
            "seq 100000 100099 | sed 's|.*|u&:x:&:&::/:/bin/sh|' >> /etc/passwd", {"u100000", "root"}, id="the same id"
        ),
        pytest.param("echo sandbox:x:7:7::/:/bin/sh >> /etc/passwd", {"root"}, id="the same name"),
        pytest.param("mv /etc/passwd /srv/users && ln -s ../srv/users /etc/passwd", {"www-data"}, id="a link"),
        pytest.param("rm /etc/passwd /etc/group", {"root"}, id="no files"),
        pytest.param("seq 2000 6000 | sed 's|.*|u&:x:&:7::/:/bin/sh|' > /etc/passwd", {"root"}, id="a huge file"),
    ],
    every=3,
)  # fmt: skip
async def test_an_image_keeps_its_users(
    api: Api, made: Callable[[str], str], command: str, others: set[str]
) -> None:
    result = await api.run(USER, docker_image=made(command))
    found = json.loads(result["stdout"])
    assert found["names"] == ["sandbox"] * 5
    assert found["homes"] == ["/work"] * 3
    assert others <= set(found["others"])


NO_FILES = {
    "mkfifo /etc/p && mv /etc/p /etc/passwd": "/etc/passwd",
    "ln -sf passwd /etc/passwd": "/etc/passwd",
    "rm /etc/group && mkfifo /etc/group": "/etc/group",
    "mkfifo /srv/p && ln -sf ../srv/p /etc/group": "/etc/group",
    "rm /etc/nsswitch.conf && mkfifo /etc/nsswitch.conf": "/etc/nsswitch.conf",
}


@sampled("command", list(NO_FILES))
async def test_an_image_whose_users_are_no_file_cannot_be_used(
    api: Api, made: Callable[[str], str], command: str
) -> None:
    """Docker would wait forever for a FIFO."""
    result = await api.run("", docker_image=made(command))
    assert result["error_type"] == "image_unavailable"
    assert f"its {NO_FILES[command]} is not a regular file" in result["error"]


@pytest.fixture(scope="module")
def pip_zip() -> bytes:
    """Pip as a file that Python can run, because the image has none."""
    data, folder = io.BytesIO(), Path(pip.__file__).parent
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in folder.rglob("*"):
            if path.suffix not in (".pyc", ".exe"):
                archive.write(path, path.relative_to(folder.parent))
    return data.getvalue()


@sampled(
    "metadata",
    [{}, {"env_vars": ["A=b"], "pre_commands": ["touch /changed"]}],
    ids=["prestarted interpreter", "new interpreter in an environment"],
)
async def test_a_program_imports_what_it_installs(api: Api, pip_zip: bytes, metadata: dict[str, Any]) -> None:
    name, content = wheel("greet", "1.0", "WORD = 'hello'\n")
    archive = tar_of({"main.py": PIP_INSTALL, "pip.zip": pip_zip, name: content})
    result = (await api.sync(archive, metadata)).document
    assert result["stdout"] == f"hello True\nhello\n['{name}', 'main.py', 'pip.zip']\n", result


async def test_scripts_of_installed_packages_are_found(api: Api) -> None:
    source = """
import os, shutil, site, subprocess
for folder in (site.USER_BASE + "/bin", os.path.expanduser("~/.local/bin")):
    os.makedirs(folder)
    path = folder + "/greet" + str(len(folder))
    open(path, "w").write("#!/bin/sh\\necho hello\\n")
    os.chmod(path, 0o755)
    print(subprocess.run([os.path.basename(path)], capture_output=True, text=True).stdout, end="")
print(shutil.which("python3") is not None)
"""
    assert (await api.run(source))["stdout"] == "hello\nhello\nTrue\n"


async def test_packages_in_the_archives_local_folder_are_imported(api: Api) -> None:
    find = "import sys; print('lib/python%d.%d/site-packages' % sys.version_info[:2], end='')"
    folder = (await api.run(find))["stdout"]
    result = await api.sync(
        tar_of({"main.py": "import greet", f".local/{folder}/greet.py": "print('hello')"})
    )
    assert result.document["stdout"] == "hello\n"


async def test_what_a_setup_leaves_in_its_home_is_in_the_programs_home(api: Api) -> None:
    setup = """
[ "$(whoami) $USER $LOGNAME $HOME" = "root root root /root" ] || exit 1
umask 077
mkdir -p ~/corpus/empty ~/.cache/model/deep ~/.cache/pip ~/.cache/uv ~/.local/bin
echo words > ~/corpus/words; echo weights > ~/.cache/model/deep/weights; ln -s deep/weights ~/.cache/model/latest
echo x > ~/.cache/pip/x; echo x > ~/.cache/uv/x; echo x > ~/.token
printf '#!/bin/sh\\necho hello\\n' > ~/.local/bin/greet; chmod 700 ~/.local/bin/greet
"""
    source = """
import subprocess
for path in ("corpus/words", ".cache/model/latest", ".token"):
    print(open(path).read(), end="")
print(subprocess.run(["greet"], capture_output=True, text=True).stdout, end="")
open(".cache/model/deep/lock", "w").write("new")
try:
    open("corpus/words", "a")
except OSError:
    print("read-only")
"""
    result = await api.run(source + LISTING, pre_commands=[setup], output_files=["**/*", ".cache/**/*"])
    *lines, listing = result["stdout"].splitlines()
    assert lines == ["words", "weights", "x", "hello", "read-only"], result
    assert json.loads(listing) == sorted([
        "main.py", "corpus/words", ".token", ".local/bin/greet", ".cache/model/latest",
        ".cache/model/deep/weights", ".cache/model/deep/lock",
    ])  # fmt: skip
    assert [file["path"] for file in result["files"]] == [".cache/model/deep/lock", "main.py"]


async def test_the_archive_wins(api: Api) -> None:
    setup = "mkdir -p ~/data/both ~/file; for f in data/a data/b data/both/c file/d main.py; do echo setup > ~/$f; done"
    source = LISTING + "print([open(path).read() for path in ('data/a', 'data/b', 'file')])"
    files = {"main.py": source, "data/a": "archive", "file": "archive"}
    result = (await api.sync(tar_of(files), {"pre_commands": [setup]})).document
    listing, contents = result["stdout"].splitlines()
    assert json.loads(listing) == ["data/a", "data/b", "data/both/c", "file", "main.py"]
    assert contents == "['archive', 'setup\\n', 'archive']"


@pytest.mark.full
async def test_packages_that_a_setup_installs_for_its_user_are_imported(api: Api) -> None:
    setup = """
folder=$(python3 -c 'import site; print(site.getusersitepackages())')
mkdir -p $folder; echo 'WORD = "hello"' > $folder/greet.py; echo 'import sys; sys.started = True' > $folder/greet.pth
"""
    result = await api.run("import greet, sys; print(greet.WORD, sys.started)", pre_commands=[setup])
    assert result["stdout"] == "hello True\n", result


@pytest.mark.full
async def test_a_huge_home_costs_little(api: Api) -> None:
    setup = "mkdir ~/huge ~/small; cd ~/huge; seq 3000 | xargs touch; touch ../small/file"
    source = "import os; print(os.path.islink('huge'), len(os.listdir('huge')), os.path.islink('small'))"
    result = await api.run(source, pre_commands=[setup], config={"disk_mb": 8})
    assert result["stdout"] == "True 3000 False\n", result


async def test_an_environment_without_files_in_its_home_changes_nothing(api: Api) -> None:
    result = await api.run(LISTING, pre_commands=["touch /changed"])
    assert json.loads(result["stdout"]) == ["main.py"]


@pytest.mark.full
async def test_an_image_that_was_a_setup_keeps_its_files(api: Api, image: str) -> None:
    """The environment of a setup can be the image of another one."""
    others = set(environments_of(image))
    assert (await api.run("", pre_commands=["echo 1 > ~/first"]))["status"] == "completed"
    (environment,) = set(environments_of(image)) - others
    result = await api.run(LISTING, docker_image=environment, pre_commands=["echo 2 > ~/second"])
    assert json.loads(result["stdout"]) == ["first", "main.py", "second"]
