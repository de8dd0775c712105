"""What the engine has of images, and how a test gets rid of its own."""

import subprocess
import time


def docker(*arguments: str) -> list[str]:
    """The words that `docker` prints."""
    return subprocess.run(
        ["docker", *arguments], check=True, stdout=subprocess.PIPE, text=True
    ).stdout.split()


def found(kind: str, value: str) -> list[str]:
    """The ids of images by a filter of the engine's."""
    return docker("images", "--filter", f"{kind}={value}", "--quiet", "--no-trunc")


def remove_images(kind: str, value: str) -> None:
    """What ran in one is perhaps still being removed, and holds it until then."""
    deadline = time.monotonic() + 30
    while left := found(kind, value):
        subprocess.run(["docker", "rmi", "--force", *left], check=False, capture_output=True)
        assert time.monotonic() < deadline, left
