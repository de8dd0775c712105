"""Load the modules of a setup's first process from their source texts, then call the last module's `main`.

This file is the program of the process (`python3 -I -S -c`). Its arguments are those of `main`, as JSON, and then the
names and texts of the modules, as for bootstrap.py."""

import json
import sys


def main():
    arguments, *texts = sys.argv[1:]
    for name, text in zip(texts[::2], texts[1::2]):
        module = sys.modules[name] = type(sys)(name)
        exec(compile(text, name, "exec"), module.__dict__)
    module.main(*json.loads(arguments))


if __name__ == "__main__":
    main()
