"""The first process of a setup container: reports its Python, and keeps the container alive during the setup.

The text of this file is the container's program (`python3 -I -S -c`). It must run in any Python 3, with only the
standard library. Its argument is the number of seconds after which the container ends in any case. A byte on its
standard input means: delete the tools, and end. The end of the input means: the server is gone, end."""

import json
import os
import shutil
import signal
import sys

TOOLS = "/.pyexec"
"""The directory of the installer and its files during the setup."""


def main():
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # reap orphaned processes of the setup
    signal.signal(signal.SIGALRM, lambda *_: os._exit(1))
    signal.alarm(int(sys.argv[1]))
    facts = {"python": list(sys.version_info[:3]), "executable": sys.executable}
    os.write(1, json.dumps(facts).encode() + b"\n")
    if os.read(0, 1):
        shutil.rmtree(TOOLS)


if __name__ == "__main__":
    main()
