"""Report where the engine's data directory is in its file system.

The text of this file is the program of a container (`python3 -I -S -c`). /etc/passwd of every sandbox is a file in that
directory. The kernel shows the path of the file from the root of its file system, not from that of the machine."""

import json
import os
import signal

TIMEOUT_SECONDS = 10
MOUNTED = "/etc/passwd"


def main():
    signal.signal(signal.SIGALRM, lambda *_: os._exit(1))
    signal.alarm(TIMEOUT_SECONDS)
    with open("/proc/self/mountinfo", errors="replace") as lines:
        fields = [line.split() for line in lines]
    paths = [path for _, _, _, path, target, *_ in fields if target == MOUNTED]
    os.write(1, json.dumps({"path": paths[0] if paths else ""}).encode() + b"\n")


if __name__ == "__main__":
    main()
