"""Makes modules of the texts that a container's interpreter was given, and lets the last one take over.

This file travels into the container as text, too, as the program to run (`python3 -I -S -c`). Its arguments are a flag
for the last one's `main`, then names and texts in turn, each after those that it imports: since a module that is known
by its full name is not looked for, the imports in them need no package around them."""

import sys


def main():
    flag, *texts = sys.argv[1:]
    for name, text in zip(texts[::2], texts[1::2]):
        module = sys.modules[name] = type(sys)(name)
        exec(compile(text, name, "exec"), module.__dict__)
    module.main(flag == "on")


if __name__ == "__main__":
    main()
