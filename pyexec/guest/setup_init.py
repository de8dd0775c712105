"""The first process of a setup container: says which Python there is, and keeps the container alive meanwhile.

This file travels into the container as text (`python3 -I -S -c`), so it is self-contained: the standard library only,
of any Python 3. Its argument is after how many seconds everything ends, whoever is alive. Its standard input says
when setup is over: a byte to clean up, the end of the input when nobody is there any more."""

import json
import os
import shutil
import signal
import sys

TOOLS = "/.pyexec"
"""Where the installer and its files lie meanwhile."""


def main():
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # orphans of what setup starts must not stay as zombies
    signal.signal(signal.SIGALRM, lambda *_: os._exit(1))
    signal.alarm(int(sys.argv[1]))
    facts = {"python": list(sys.version_info[:3]), "executable": sys.executable}
    os.write(1, json.dumps(facts).encode() + b"\n")
    if os.read(0, 1):
        shutil.rmtree(TOOLS)


if __name__ == "__main__":
    main()
