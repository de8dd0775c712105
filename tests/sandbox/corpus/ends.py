"""Programs that end in different ways, with their output."""

from tests.sandbox.corpus.case import Case

_AT_EXIT = """
import atexit, threading, time, weakref
class Noisy:
    def __init__(self, name): self.name = name
    def __del__(self): print('gone', self.name, __name__ if '__name__' in globals() else None, flush=True)
module_level, cycle = Noisy('global'), Noisy('cycle')
cycle.cycle = cycle
atexit.register(print, 'first registered'), atexit.register(lambda: 1 / 0), atexit.register(print, 'last registered')
weakref.finalize(module_level, print, 'finalized')
def late():
    time.sleep(0.05); print('thread', threading.main_thread().is_alive())
threading.Thread(target=late).start(), threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
print('main is done', end='')
"""

_CHAINED = """
def inner():
    return {}['missing']
class Odd(Exception):
    def __str__(self): return 'odd\\nand long'
try:
    try: inner()
    except KeyError as error: raise ValueError('while') from error
except ValueError:
    error = Odd(); error.add_note('a note') if hasattr(error, 'add_note') else None
    raise error
"""

ENDS = {
    "a traceback": Case("def f(x):\n    return 1 / x  # here\n\nprint('before')\nf(\n    0\n)\n"),
    "chained tracebacks": Case(_CHAINED),
    "an exception group": Case(
        "raise ExceptionGroup('some', [ValueError(1), ExceptionGroup('in', [KeyError('k')])])"
    ),
    "a recursion error": Case("def f(): return f()\nf()"),
    "an exception in a thread": Case(
        "import threading\ndef f(): raise ValueError('in here')\nt = threading.Thread(target=f, name='other')\n"
        "t.start(); t.join(); print('went on')"
    ),
    "an exception in a finalizer": Case(
        "class A:\n    def __del__(self): raise ValueError('unheard')\nA()\nprint(1)"
    ),
    "an exception in a module": Case(
        "import other\nother.go()", files={"other.py": "def go():\n    raise OSError(5, 'x')\n"}
    ),
    "an exception in exec": Case("exec(compile('x = 1\\ny = x.z', '<made>', 'exec'))"),
    "an excepthook": Case(
        "import sys\nsys.excepthook = lambda *a: print('hook', a[0], file=sys.stderr)\n1 / 0"
    ),
    "an excepthook that fails": Case("import sys\nsys.excepthook = lambda *a: 1 / 0\n[][0]"),
    "formatted tracebacks": Case(
        "import sys, traceback, linecache, inspect\ntry:\n    int('x')\nexcept ValueError:\n    traceback.print_exc()\n"
        "print(linecache.getline(__file__, 3), inspect.getsource(sys.modules['__main__']), traceback.extract_stack())\n"
        "def f(): pass\nprint(inspect.getsource(f), inspect.getsourcefile(f), f.__code__.co_filename)"
    ),
    "a syntax error": Case("print('never')\nif True\n    print(1)\n"),
    "a syntax error with its place": Case("x = (1 +\n     2 3)\n"),
    "a syntax error in an f-string": Case("name = 'x'\nprint(f'{name!z} {na me}')\n"),
    "a syntax error after non-ASCII text": Case("print('ü€𝄞') 1\n"),
    "a syntax error on the last line": Case("def f(:"),
    "an error of the compiler": Case("def f():\n    return 1\nreturn 2\n"),
    "brackets that do not close": Case("x = [1,\n     2,\nprint(x)\n\n\n"),
    "a string that does not close": Case("print('''one\ntwo\n"),
    "a wrong indent": Case("if 1:\n    print(1)\n   print(2)\n"),
    "an unexpected indent": Case("print(1)\n  print(2)\n"),
    "tabs and spaces": Case("if 1:\n        print(1)\n\tprint(2)\n"),
    "syntax error in a module": Case("import bad", files={"bad.py": "x = = 1\n"}),
    "exit with nothing": Case("import sys\nprint('x', end='')\nsys.exit()"),
    "exit with a number": Case("import sys\nsys.exit(300)"),
    "exit with text": Case("raise SystemExit('why\\nnot')"),
    "exit with an object": Case("raise SystemExit([1, 2])"),
    "exit from a function that is called by name": Case("exit(3)"),
    "exit at once": Case("import os, sys\nsys.stdout.write('kept')\nos._exit(5)"),
    "exit by a signal": Case("import os, signal\nprint('x')\nos.kill(os.getpid(), signal.SIGTERM)"),
    "abort": Case("import os\nos.abort()"),
    "a fault": Case("import faulthandler, ctypes\nfaulthandler.enable()\nctypes.string_at(0)"),
    "an interrupt": Case(
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nfor _ in iter(int, 1): pass"
    ),
    "at exit": Case(_AT_EXIT),
    "a broken stdout": Case("import os, sys\nos.close(1)\nprint('x')"),
    "both streams": Case("import sys\nfor n in range(5): print(n, file=(sys.stdout, sys.stderr)[n % 2])"),
    "bytes that are not text": Case(
        "import sys\nsys.stdout.buffer.write(bytes(range(256)))\nprint('\\udcff')"
    ),
    "warnings": Case(
        "import warnings\nwarnings.warn('one')\ndef f(): warnings.warn('two', stacklevel=2)\nf()\n"
        "warnings.warn('out of it', DeprecationWarning, stacklevel=9)\nwarnings.warn('old', DeprecationWarning)\n"
        "print(__warningregistry__.keys())\nopen('main.py')\n"
    ),
    "logging": Case(
        "import logging\nlogging.basicConfig()\nlogging.warning('x %s', 1)\nlogging.exception('none')"
    ),
}
