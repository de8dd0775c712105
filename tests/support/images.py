"""What the engine has of images, and how a test gets rid of its own."""

import os
import select
import subprocess
import time

PATIENCE_SECONDS = 30


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
    command = ["docker", "events", "--since", str(int(time.time())), "--filter", "event=destroy"]
    with subprocess.Popen([*command, "--format", "{{.ID}}"], stdout=subprocess.PIPE) as events:
        try:
            while left := found(kind, value):
                done = subprocess.run(["docker", "rmi", "--force", *left], check=False, capture_output=True)
                if done.returncode:
                    ready, _, _ = select.select([events.stdout], [], [], PATIENCE_SECONDS)
                    assert ready, f"{left} are still in use: {done.stderr.decode()}"
                    os.read(ready[0].fileno(), 4096)
        finally:
            events.kill()
