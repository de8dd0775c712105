"""Run a script as `python script` does, and send the repr of its last expression to the supervisor.

See docs/design/last-expression.md. This file travels into the container as text, in the PLAN frame of a run that wants
the expression. It uses only the standard library of Python 3.8 or later. Its arguments are a descriptor, the script,
and the script's arguments.

The descriptor is a socket that preserves message boundaries. A message counts only if it begins with a secret, which
stays unread in the socket until the script has ended. So the script cannot forge the result.

This file imports only modules that the interpreter has already loaded. Any other import could load a file of the
caller with the same name."""

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
        send_result(channel, repr(value).encode("utf-8", "backslashreplace"))


def send_result(channel, text):
    secret = os.read(channel, SECRET_BYTES)
    for start in range(0, len(text), CHUNK):
        os.write(channel, secret + text[start : start + CHUNK])


def print_traceback(kind, error, trace):
    """Print a traceback as the interpreter does, without the frames of this file."""
    while trace and trace.tb_frame.f_code.co_filename == "<string>":
        trace = trace.tb_next
    sys.__excepthook__(kind, error.with_traceback(trace), trace)


if __name__ == "__main__":
    main()
