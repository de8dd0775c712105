"""Test well-known packages from the machine's package index."""

import struct
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.api import Api, api_of
from tests.support.images import remove_environments
from tests.support.server import Server, installing_settings, running_server

PLOT = """
import matplotlib
matplotlib.use("Agg")
from matplotlib import pyplot
pyplot.plot([1, 4, 9])
pyplot.savefig("plot.png")
"""
SUMS = """
import numpy, pandas
print(pandas.DataFrame({"x": numpy.arange(4)}).x.sum())
"""


@pytest.fixture(scope="module")
def installing(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(
        tmp_path_factory.mktemp("packages") / "data", image, **installing_settings()
    ) as server:
        yield server
    remove_environments(image)


@pytest.fixture
async def api(installing: Server) -> AsyncIterator[Api]:
    async with api_of(installing.url) as client:
        yield client


@pytest.mark.full
async def test_numpy_and_pandas_are_installed_once_and_run_without_network(api: Api) -> None:
    requirements = "numpy\npandas\n"
    first = await api.run(SUMS, requirements_txt=requirements)
    assert (first["stdout"], first["stderr"], first["status"]) == ("6\n", "", "completed"), first
    second = await api.run(SUMS, requirements_txt=requirements)
    assert (second["stdout"], second["timings_ms"]["setup"]) == ("6\n", 0)


@pytest.mark.full
async def test_matplotlib_writes_a_png_output_file(api: Api) -> None:
    result = await api.run(PLOT, requirements_txt="matplotlib\n", output_files=["*.png"])
    assert (result["status"], result["exit_code"]) == ("completed", 0), result
    (file,) = result["files"]
    assert file["path"] == "plot.png"
    async with api.session.get(f"/api/v1/executions/{result['execution_id']}/files/plot.png") as answer:
        picture = await answer.read()
    assert len(picture) == file["size"]
    signature, width, height = picture[:8], *struct.unpack(">II", picture[16:24])
    assert (signature, width, height) == (b"\x89PNG\r\n\x1a\n", 640, 480)


@pytest.mark.full
async def test_commands_may_install_with_apt(api: Api) -> None:
    install = "apt-get update && apt-get install --yes --no-install-recommends bc"
    result = await api.run(
        "import subprocess; print(subprocess.run(['bc'], input=b'6*7\\n', capture_output=True).stdout)",
        pre_commands=[install],
    )
    assert result["stdout"] == "b'42\\n'\n", result


@pytest.mark.full
async def test_a_failed_build_names_the_package_and_the_compiler(api: Api) -> None:
    """The sdist has C sources, and the image has no compiler."""
    result = await api.run("print('never')", requirements_txt="--no-binary :all:\nujson==5.10.0\n")
    assert (result["status"], result["error_type"]) == ("failed", "setup_failed"), result
    assert "ujson" in result["error"]
    assert any(word in result["stderr"] for word in ("gcc", "g++", "cc1", "compiler")), result["stderr"][
        -2000:
    ]
