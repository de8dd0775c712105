"""Images on the engine: find them by label and name, create them for a test, and remove them."""

import os
import secrets
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PATIENCE_SECONDS = 30
OWNER_LABEL = "pyexec.test"
"""Marks the images of one test run's worker, and those that servers make of them, which inherit it."""


def docker(*arguments: str, stdin: str = "") -> list[str]:
    """Run a `docker` command; return the words that it prints."""
    return subprocess.run(
        ["docker", *arguments], input=stdin, check=True, stdout=subprocess.PIPE, text=True
    ).stdout.split()


def found(*filters: str) -> list[str]:
    """Return the ids of the images that pass all filters, such as `label=KEY=VALUE` or `reference=NAME`."""
    options = [f"--filter={each}" for each in filters]
    return list(dict.fromkeys(docker("images", *options, "--quiet", "--no-trunc")))


def environments_of(image: str, *filters: str) -> list[str]:
    """Return the ids of the environments that servers have built from an image of `own_image`."""
    return found(*_made_of(image), *filters)


def remove_environments(image: str) -> None:
    """Remove the environments that servers have built from an image of `own_image`."""
    remove_images(*_made_of(image))


def _made_of(image: str) -> tuple[str, str]:
    (owner,) = docker("inspect", "--format", f'{{{{index .Config.Labels "{OWNER_LABEL}"}}}}', image)
    return "label=pyexec.environment", f"label={OWNER_LABEL}={owner}"


@contextmanager
def own_image(image: str) -> Iterator[str]:
    """Create a copy of `image` for one test; yield its name. Remove it and its environments at the end.

    Environments are shared by all servers of an engine that make them of the same image."""
    owner = secrets.token_hex(4)
    name = f"pyexec-test-own:{owner}"
    labelled = ("--label", f"{OWNER_LABEL}={owner}", "--network=none", "--quiet", "--tag", name)
    docker("build", *labelled, "-", stdin=f"FROM {image}\n")
    try:
        yield name
    finally:
        remove_containers(name)
        remove_images(f"label={OWNER_LABEL}={owner}")  # also environments and other images made of it


def remove_containers(image: str) -> None:
    """Remove the containers of an image and of images made of it, such as those of servers that a test killed."""
    if left := docker("ps", "--all", "--quiet", "--filter", f"ancestor={image}"):
        # The engine may be removing them already.
        subprocess.run(["docker", "rm", "--force", *left], check=False, capture_output=True)


def remove_images(*filters: str) -> None:
    """Remove the images that pass all filters; wait while a container that is being removed still uses one."""
    command = ["docker", "events", "--since", str(int(time.time())), "--filter", "event=destroy"]
    with subprocess.Popen([*command, "--format", "{{.ID}}"], stdout=subprocess.PIPE) as events:
        try:
            left = found(*filters)
            while left:
                done = subprocess.run(["docker", "rmi", "--force", *left], check=False, capture_output=True)
                before, left = left, found(*filters)
                if left == before:  # not only parents that were listed before their children
                    ready, _, _ = select.select([events.stdout], [], [], PATIENCE_SECONDS)
                    assert ready, f"{left} are still in use: {done.stderr.decode()}"
                    os.read(ready[0].fileno(), 4096)
        finally:
            events.kill()


def install_ipython(image: str, folder: Path) -> str:
    """Install IPython into `folder` for the Python of `image`; return the name of the folder.

    It lacks what IPython needs only to complete code: thousands of small files, which the engine copies slowly. An
    import writes the bytecode files. Without them, each interpreter of a session compiles IPython again, which takes
    0.3 s of processor time (2026-11-27)."""
    show = "import sys, site; print('%d.%d' % sys.version_info[:2], site.getsitepackages()[0])"
    version, packages = docker("run", "--rm", "--network=none", image, "python3", "-c", show)
    site = folder / "site"
    install = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--target", str(site)]
    subprocess.run([*install, "--python-version", version, "--only-binary=:all:", "ipython"], check=True)
    for name in ("jedi", "parso"):
        shutil.rmtree(site / name)
    start = "from IPython.core.interactiveshell import InteractiveShell; InteractiveShell.instance()"
    options = ("--rm", "--network=none", "--tmpfs=/tmp", "--env=HOME=/tmp", f"--volume={site}:{packages}")
    docker("run", *options, image, "python3", "-c", start)
    (folder / "packages").write_text(packages)
    return str(folder)


@contextmanager
def image_with_ipython(image: str, installed: str) -> Iterator[str]:
    """Create an image like `image`, with IPython from a folder of `install_ipython`; yield its name.

    Workers that give the same image share the layer, because the engine keeps a step of a build while an image uses
    it."""
    owner = secrets.token_hex(4)
    name = f"pyexec-test-session:{owner}"
    packages = Path(installed, "packages").read_text()
    text = f"FROM {image}\nCOPY site {packages}\nLABEL {OWNER_LABEL}={owner}\n"
    docker("build", "--quiet", "--network=none", "--tag", name, "--file=-", installed, stdin=text)
    try:
        yield name
    finally:
        # `docker rmi --force` removes only the name of an image whose container is still being removed.
        remove_containers(name)
        remove_images(f"label={OWNER_LABEL}={owner}")
