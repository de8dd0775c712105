"""Test that popular packages from the machine's package index work under the limits of a sandbox."""

import json
from collections.abc import Iterator

import pytest

from tests.sandbox.packages import GROUPS
from tests.support.api import api_of
from tests.support.archives import tar_of
from tests.support.images import remove_environments
from tests.support.server import Server, installing_settings, running_server

pytestmark = pytest.mark.soak

USE = """
import json, os, subprocess, sys
for name, source in json.load(open('uses.json')).items():
    done = subprocess.run([sys.executable, '-c', source], capture_output=True, text=True)
    print(name, 'works' if done.returncode == 0 else done.stderr[-1500:], flush=True)
"""


@pytest.fixture(scope="module")
def installing(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {**installing_settings(), "setup_timeout": "900", "setup_disk_mb": "4096"}
    with running_server(tmp_path_factory.mktemp("packages") / "data", image, **settings) as server:
        yield server
    remove_environments(image)


@pytest.mark.parametrize("group", GROUPS)
async def test_popular_packages_work(installing: Server, group: str) -> None:
    uses = GROUPS[group]
    archive = tar_of({"main.py": USE, "uses.json": json.dumps(uses)})
    metadata = {"requirements_txt": "\n".join(uses), "config": {"timeout_seconds": 200}}
    async with api_of(installing.url) as api:
        accepted = await api.submit(archive, metadata)
        assert accepted.status == 202, accepted.document
        result = await api.ended(accepted.document["execution_id"])
    assert result["status"] == "completed", result
    works = [f"{name} works" for name in uses]
    assert result["stdout"].splitlines() == works, result["stdout"]


BROWSER = """
import subprocess
open('page.html', 'w').write('<p id=p></p><script>p.textContent = 6 * 7</script>')
chromium = ['chromium', '--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--dump-dom']
print('<p id="p">42</p>' in subprocess.run([*chromium, 'page.html'], capture_output=True, text=True).stdout)
open('main.cc', 'w').write('#include <iostream>\\nint main() { std::cout << 42; }')
subprocess.run(['g++', '-fsanitize=address', 'main.cc'], check=True)
print(subprocess.run(['./a.out'], capture_output=True, text=True).stdout)
"""


async def test_a_browser_and_a_compiler_work(installing: Server) -> None:
    commands = [
        "apt-get update -qq",
        "apt-get install -qq --no-install-recommends chromium g++ libc6-dev gpg man-db",
    ]
    async with api_of(installing.url) as api:
        execution_id = await api.accepted(
            BROWSER, pre_commands=commands, env_vars=["ASAN_OPTIONS=detect_leaks=0"]
        )
        result = await api.ended(execution_id)
    assert (result["status"], result.get("stdout")) == ("completed", "True\n42\n"), result
