"""A real S3 server on a free port, over a directory."""

import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support.consul import free_ports

BUCKET = "bucket"
KEY, SECRET = "access-key-of-tests", "secret-key-of-tests"
START_SECONDS = 60


@contextmanager
def running_s3(directory: Path) -> Iterator[Mapping[str, str]]:
    """Run a server with one bucket; yield the environment variables for clients."""
    (directory / BUCKET).mkdir(parents=True)
    address = f"127.0.0.1:{free_ports(['s3'])['s3']}"
    program = Path(sys.executable).parent / "rclone"
    command = [program, "serve", "s3", f"--auth-key={KEY},{SECRET}", f"--addr={address}", directory]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    listening = threading.Event()

    def read_log() -> None:
        for line in process.stderr or ():
            if "Starting s3 server" in line:
                listening.set()

    reader = threading.Thread(target=read_log, name="rclone's log")
    reader.start()
    try:
        if not listening.wait(START_SECONDS):
            raise RuntimeError("rclone serves no S3")
        yield {
            "AWS_ENDPOINT": f"http://{address}",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
        }
    finally:
        process.kill()
        process.wait(START_SECONDS)
        reader.join(START_SECONDS)
        if process.stderr is not None:
            process.stderr.close()
