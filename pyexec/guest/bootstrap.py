"""Load the supervisor's modules from their source texts, then call the last module's `main`.

This file is the program of a sandbox's first process (`python3 -I -S -c`). Its first argument is "on" if the supervisor
should start an interpreter in advance, else "off". The second is the text of startup.py, the third has the modules with
which programs report, as JSON, the fourth the filters of system calls (seccomp.py). Then follow the names and texts of
the modules; each module comes after those that it imports. Imports between them need no files: Python finds a loaded
module by its full name in `sys.modules`."""

import json
import sys


def main():
    prestart, startup, reports, filters, *texts = sys.argv[1:]
    for name, text in zip(texts[::2], texts[1::2]):
        module = sys.modules[name] = type(sys)(name)
        exec(compile(text, name, "exec"), module.__dict__)
    module.main(prestart == "on", startup, json.loads(reports), filters)


if __name__ == "__main__":
    main()
