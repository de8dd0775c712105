"""Runs a script as `python script` does, and tells the supervisor the repr of its last expression.

This file travels into the container as text (`python3 -c`), with the go-ahead of a run that wants the expression: the
standard library only, of Python 3.8 and later. Its arguments are a descriptor, the script, the script's arguments.

The descriptor is a socket that keeps messages apart, and only those that begin with a secret count. The secret lies
unread in the socket until the script is done. So neither what the script prints, nor what it or its children write
into every descriptor they can think of, is ever taken for the result. Nothing is imported here that is not there
already: a file of the script's own may have the name of a module, and would be taken for it."""

import _ast as ast
import os
import sys

SECRET_BYTES = 16
CHUNK = 32 * 1024


def main():
    channel = int(sys.argv[1])
    os.set_inheritable(channel, False)
    del sys.argv[:2]
    path = os.path.abspath(sys.argv[0])
    if sys.path and not sys.path[0]:
        sys.path[0] = os.path.dirname(path)
    sys.excepthook = print_traceback
    with open(path, "rb") as file:
        tree = compile(file.read(), path, "exec", ast.PyCF_ONLY_AST)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    module = type(sys)("__main__")
    module.__file__ = path
    module.__builtins__ = __builtins__
    sys.modules["__main__"] = module
    exec(compile(tree, path, "exec"), module.__dict__)
    if last is not None:
        value = eval(compile(ast.Expression(last.value), path, "eval"), module.__dict__)
        tell(channel, repr(value).encode("utf-8", "backslashreplace"))


def tell(channel, text):
    secret = os.read(channel, SECRET_BYTES)
    for start in range(0, len(text), CHUNK):
        os.write(channel, secret + text[start : start + CHUNK])


def print_traceback(kind, error, trace):
    """As the interpreter prints it, without this program's own frames."""
    while trace and trace.tb_frame.f_code.co_filename == "<string>":
        trace = trace.tb_next
    sys.__excepthook__(kind, error.with_traceback(trace), trace)


if __name__ == "__main__":
    main()
