"""Cost of packages: the first run that installs numpy and pandas, and later runs that have them."""

import json
import os
import subprocess
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import cycle, islice, permutations
from pathlib import Path

from benchmarks.baselines import bare_python
from benchmarks.report import RatioBound, Section
from benchmarks.service import Service, running_service, tar_of
from benchmarks.timing import Samples, timed
from pyexec.sandbox.environments.setup import installed_uv

ROUNDS_FIRST, ROUNDS_LATER, WARM_UPS = 6, 24, 3
REQUIREMENTS = "numpy\npandas\n"
SCRIPT = b"import numpy, pandas\nprint(pandas.Series(numpy.arange(4)).sum())\n"
EXPECTED_OUTPUT = "6\n"
CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
INSTALL = ["/tmp/uv", "pip", "install", "--python", "/usr/bin/python3", "--break-system-packages"]
INSTALL += ["--compile-bytecode", "--no-cache", "--no-config", "--no-progress", *REQUIREMENTS.split()]
NETWORK = "pyexec-setup"
"""The network of setups; the running server has created it."""
INSTALL_ONLY, FIRST = "uv install and docker commit", "first run"
BARE, IN_IMAGE, LATER = "bare python3, packages in image", "run, packages in image", "later run"


def measure_environments(image: str) -> Section:
    """Compare the first run with uv and `docker commit`, and later runs with an image that has the packages."""
    samples: dict[str, Samples] = {}
    settings = {"ca_bundle": str(CA_BUNDLE)} if CA_BUNDLE.exists() else {}
    committed = f"pyexec-bench:{uuid.uuid4().hex}"
    try:
        with running_service(image, **settings) as service:
            samples |= _first_runs(service, image, committed)
            samples |= _later_runs(service)
    finally:
        _remove_images(committed)
    return Section(
        title="numpy and pandas: the first run installs them, later runs reuse the environment",
        samples=samples,
        references=[BARE],
        bounds=[
            RatioBound(row=FIRST, reference=INSTALL_ONLY, factor=1.5),
            RatioBound(row=LATER, reference=IN_IMAGE, factor=1.1),
            RatioBound(row=LATER, reference=BARE, factor=1.1),
        ],
    )


def _first_runs(service: Service, image: str, committed: str) -> dict[str, Samples]:
    """Install the packages repeatedly: by uv and `docker commit` alone, and by a run with a new requirements.txt."""
    rows: dict[str, Callable[[], float]] = {
        INSTALL_ONLY: partial(_install_and_commit, image, committed),
        FIRST: lambda: _run(service, {"requirements_txt": f"# {uuid.uuid4()}\n{REQUIREMENTS}"}),
    }
    # `sync`, and both orders in turn: a disk that has just written a lot is slow at first.
    return _take_turns(service, rows, ROUNDS_FIRST, before_each=os.sync)


def _later_runs(service: Service) -> dict[str, Samples]:
    """Run with the packages installed: under the bare interpreter, by image name, and by requirements.txt.

    All three use the same image, so that all of them find its files in the page cache."""
    _run(service, {"requirements_txt": REQUIREMENTS})
    environment = _environment_images()[0]
    with bare_python(environment, SCRIPT, EXPECTED_OUTPUT, BARE) as bare:
        rows: dict[str, Callable[[], float]] = {
            BARE: bare.run,
            IN_IMAGE: partial(_run, service, {"docker_image": environment}),
            LATER: partial(_run, service, {"requirements_txt": REQUIREMENTS}),
        }
        for _ in range(WARM_UPS):
            for run in rows.values():
                run()
        # Every order equally often: the removal of a container slows down the row that follows it.
        return _take_turns(service, rows, ROUNDS_LATER)


def _take_turns(
    service: Service,
    rows: dict[str, Callable[[], float]],
    rounds: int,
    before_each: Callable[[], None] = lambda: None,
) -> dict[str, Samples]:
    """Run each row once per round, in another order each round, and only when the service is idle."""
    samples = {name: Samples() for name in rows}
    for order in islice(cycle(permutations(rows)), rounds):
        for name in order:
            service.wait_until_idle()
            before_each()
            samples[name].seconds.append(rows[name]())
    return samples


def _run(service: Service, metadata: dict[str, str]) -> float:
    seconds, result = service.execute(json.dumps(metadata).encode(), tar_of("main.py", SCRIPT))
    if result.get("stdout") != EXPECTED_OUTPUT:
        raise RuntimeError(f"the run did not print the sum: {result}")
    return seconds


def _install_and_commit(image: str, name: str) -> float:
    """Time uv and `docker commit` in a running container; tag the new image `name`."""
    with _container(image) as container, timed() as watch:
        _docker("exec", "--env", "SSL_CERT_FILE=/tmp/ca.pem", container, *INSTALL)
        _docker("commit", container, name)
    return watch.seconds


@contextmanager
def _container(image: str) -> Iterator[str]:
    """Run a container with uv and the CA bundle in it."""
    container = _docker("run", "--detach", "--network", NETWORK, image, "sleep", "600").strip()
    try:
        _docker("cp", str(installed_uv()), f"{container}:/tmp/uv")
        if CA_BUNDLE.exists():
            _docker("cp", "--follow-link", str(CA_BUNDLE), f"{container}:/tmp/ca.pem")
        yield container
    finally:
        _docker("rm", "--force", container)


def _remove_images(committed: str) -> None:
    subprocess.run(["docker", "rmi", "--force", committed], check=False, stdout=subprocess.PIPE)
    subprocess.run(["docker", "rmi", "--force", *_environment_images()], check=False, stdout=subprocess.PIPE)


def _environment_images() -> Sequence[str]:
    """List the images that servers have built for requirements, newest first."""
    return _docker("images", "--filter", "label=pyexec.environment", "--quiet", "--no-trunc").split()


def _docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout
