"""Run a script as `python script` does, and report the value of its last expression.

See docs/design/last-expression.md. `sys.argv` has the script and its arguments. This module imports only modules that
the interpreter has already loaded. Any other import could load a file of the caller with the same name."""

import _ast as ast
import os
import sys
from _frozen_importlib_external import SourceFileLoader

from pyexec.guest.reports.channel import channel, load, without_own_frames

PLAIN_TYPES = (type(None), bool, int, float, complex, str, bytes, list, tuple, dict, set)
"""Types without other forms than their repr."""


def main():
    del sys.argv[:1]
    path = os.path.abspath(sys.argv[0])
    if sys.path and not sys.path[0]:
        sys.path[0] = os.path.dirname(path)
    sys.excepthook = print_traceback
    with open(path, "rb") as file:
        tree = compile(file.read(), path, "exec", ast.PyCF_ONLY_AST)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    module = type(sys)("__main__")
    module.__file__ = path
    module.__builtins__ = sys.modules["builtins"]
    # Set the other attributes that the interpreter sets in `__main__`. From 3.14 on, it sets no annotations.
    module.__cached__ = None
    module.__loader__ = SourceFileLoader("__main__", path)
    if "__annotations__" in vars(sys.modules["__main__"]):
        module.__annotations__ = {}
    sys.modules["__main__"] = load("hooks").script = module
    exec(compile(tree, path, "exec"), module.__dict__)
    if last is not None:
        value = eval(compile(ast.Expression(last.value), path, "eval"), module.__dict__)
        text = repr(value)
        if channel.is_open():
            channel.send_result(text.encode("utf-8", "backslashreplace"))
            if type(value) not in PLAIN_TYPES:
                load("bundles", "display").show_value(value)


def print_traceback(kind, error, trace):
    """Print a traceback as the interpreter does, without the frames of this package and of the command line."""
    trace = without_own_frames(trace and trace.tb_next)
    sys.__excepthook__(kind, error.with_traceback(trace), trace)
