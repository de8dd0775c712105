"""What packages cost: the first run that needs them, and every later one."""

import json
import os
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import cycle, islice, permutations
from pathlib import Path

from benchmarks.bare import bare_python
from benchmarks.report import Ratio, Section
from benchmarks.samples import Samples, timed
from benchmarks.service import Service, running_service, tar_of
from pyexec.sandbox.environments.setup import installed_uv

ROUNDS_FIRST, ROUNDS_LATER, WARM_UPS = 6, 24, 3
REQUIREMENTS = "numpy\npandas\n"
SCRIPT = b"import numpy, pandas\nprint(pandas.Series(numpy.arange(4)).sum())\n"
SUM = "6\n"
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
INSTALL = ["/tmp/uv", "pip", "install", "--python", "/usr/bin/python3", "--break-system-packages"]
INSTALL += ["--compile-bytecode", "--no-cache", "--no-config", "--no-progress", *REQUIREMENTS.split()]
NETWORK = "pyexec-setup"
"""The one that setups use; a server has made it by then."""
ALONE, FIRST, HAVING, LATER = "uv and commit alone", "first run", "image that has them", "later run"
BARE = "bare python3 that has them"


def measure_environments(image: str) -> Section:
    """The first run beside uv and the commit alone, a later one beside an image that has the packages."""
    samples = {name: Samples([]) for name in (ALONE, FIRST, BARE, HAVING, LATER)}
    settings = {"ca_bundle": str(AUTHORITIES)} if AUTHORITIES.exists() else {}
    prepared = f"pyexec-bench:{uuid.uuid4().hex}"
    try:
        with running_service(image, **settings) as service:
            firsts = {
                ALONE: partial(_install_alone, image, prepared),
                FIRST: lambda: _run(service, {"requirements_txt": f"# {uuid.uuid4()}\n{REQUIREMENTS}"}),
            }
            # In either order: a disk that has just taken much takes more only slowly.
            for order in islice(cycle(permutations(firsts)), ROUNDS_FIRST):
                for name in order:
                    service.settle()
                    os.sync()
                    samples[name].seconds.append(firsts[name]())
            _run(service, {"requirements_txt": REQUIREMENTS})
            # One image for all: whoever reads the files that were read just before finds them in the caches.
            made = _environments()[0]
            with bare_python(made, SCRIPT, SUM, BARE) as bare:
                rows = {
                    BARE: bare.run,
                    HAVING: partial(_run, service, {"docker_image": made}),
                    LATER: partial(_run, service, {"requirements_txt": REQUIREMENTS}),
                }
                for _ in range(WARM_UPS):
                    for run in rows.values():
                        run()
                # In every order, as often: what follows a container's removal finds the caches full of other things.
                for order in islice(cycle(permutations(rows)), ROUNDS_LATER):
                    for name in order:
                        service.settle()
                        samples[name].seconds.append(rows[name]())
    finally:
        _remove(prepared)
    return Section(
        title="numpy and pandas: installed for the first run, there for the later ones",
        samples=samples,
        references=[BARE],
        bounds=[
            Ratio(row=FIRST, reference=ALONE, factor=1.5),
            Ratio(row=LATER, reference=HAVING, factor=1.1),
            Ratio(row=LATER, reference=BARE, factor=1.1),
        ],
    )


def _run(service: Service, metadata: dict[str, str]) -> float:
    seconds, result = service.execute(json.dumps(metadata).encode(), tar_of("main.py", SCRIPT))
    if result.get("stdout") != SUM:
        raise RuntimeError(f"the run did not print its sum: {result}")
    return seconds


def _install_alone(image: str, name: str) -> float:
    """What uv and the commit take in a container that is there already; the result is called `name`."""
    with _container(image) as container, timed() as watch:
        _docker("exec", "--env", "SSL_CERT_FILE=/tmp/ca.pem", container, *INSTALL)
        _docker("commit", container, name)
    return watch.seconds


@contextmanager
def _container(image: str) -> Iterator[str]:
    container = _docker("run", "--detach", "--network", NETWORK, image, "sleep", "600").strip()
    try:
        _docker("cp", str(installed_uv()), f"{container}:/tmp/uv")
        if AUTHORITIES.exists():
            _docker("cp", "--follow-link", str(AUTHORITIES), f"{container}:/tmp/ca.pem")
        yield container
    finally:
        _docker("rm", "--force", container)


def _remove(name: str) -> None:
    subprocess.run(["docker", "rmi", "--force", name], check=False, stdout=subprocess.PIPE)
    subprocess.run(["docker", "rmi", "--force", *_environments()], check=False, stdout=subprocess.PIPE)


def _environments() -> Sequence[str]:
    """The images that servers have made, the newest first."""
    return _docker("images", "--filter", "label=pyexec.environment", "--quiet", "--no-trunc").split()


def _docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout
