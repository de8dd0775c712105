"""Programs that import files in the directory of the script, or that inspect the script as a module."""

from tests.sandbox.corpus.case import Case

_SHADOWS = (
    "code.py", "encodings.py", "io.py", "random.py", "site.py", "sitecustomize.py", "types.py", "usercustomize.py",
)  # fmt: skip

_PICKLE = """
import copy, dataclasses, pickle, typing
@dataclasses.dataclass
class Point:
    x: int
    def method(self: 'Point') -> 'Point': return self
print(pickle.loads(pickle.dumps(Point(1))), Point.__module__, Point.__qualname__, copy.deepcopy(Point(2)))
print(typing.get_type_hints(Point.method), pickle.dumps(Point))
"""

_DOCTEST = '''
def double(x):
    """
    >>> double(2)
    4
    >>> double('a')
    'ab'
    """
    return x * 2
import doctest, unittest
print(doctest.testmod())
class Tests(unittest.TestCase):
    def test(self): self.assertEqual(double(1), 2)
suite = unittest.defaultTestLoader.loadTestsFromName('__main__')
print(unittest.TextTestRunner(stream=open('/dev/null', 'w')).run(suite))
'''

_AGAIN = """
import sys
print(__name__, sys.argv, __spec__, __package__)
if __name__ == '__main__':
    import importlib, main, runpy
    print(main.__spec__, main.__file__, main.__cached__, main is sys.modules['__main__'])
    runpy.run_path('main.py', run_name='by path')
    runpy.run_module('main', run_name='by name')
    importlib.reload(main)
"""

_HOOK = """
import sys
class Finder:
    def find_spec(self, name, path=None, target=None): print('asked for', name, path)
sys.meta_path.insert(0, Finder())
import json.tool, missing_on_purpose
"""

IMPORTS = {
    "files that shadow the standard library": Case(
        "import random, code, site, sys\nprint(random.mine, code.mine, hasattr(site, 'mine'), sys.path[0])",
        files=dict.fromkeys(_SHADOWS, "mine = __file__"),
    ),
    "files that shadow the traceback modules": Case(
        "import warnings\nwarnings.warn('x')\n1 / 0",
        files={"linecache.py": "print('mine')", "traceback.py": "print('mine')", "tokenize.py": "print('mine')"},
    ),
    "packages in the directory of the script": Case(
        "import os, pkg.sub, space.part\nfrom pkg import sub\n"
        "print(pkg.__path__, space.__path__, sub.__spec__, sub.up)\n"
        "print(sorted(os.listdir()), sorted(os.listdir('pkg')), sorted(os.listdir('pkg/__pycache__')))",
        files={"pkg/__init__.py": "", "pkg/sub.py": "from . import __name__ as up", "space/part.py": ""},
    ),
    "a package that runs as main": Case(
        "import runpy, sys\nrunpy.run_module('pkg', run_name='__main__', alter_sys=True)\nprint(sys.argv)",
        files={"pkg/__init__.py": "print('init')", "pkg/__main__.py": "import sys; print(__spec__, sys.argv)"},
    ),
    "an archive of modules": Case(
        "import sys\nsys.path.append('lib.zip')\ntry:\n    import inside\nexcept ImportError as e: print(repr(e))",
        files={"lib.zip": b"no archive"},
    ),
    "data in the directory of the script": Case(
        "import os, pathlib\nprint(pathlib.Path(__file__).parent, open('data/a').read(), os.path.realpath('x'))",
        files={"data/a": "content"},
    ),
    "a home with a user's site": Case(
        "import site, sys\nprint(site.ENABLE_USER_SITE, sys.path)\nimport mine",
        files={".local/lib/python3.11/site-packages/mine.py": "print('mine')",
               ".local/lib/python3.11/site-packages/usercustomize.py": "print('customized')",
               ".local/lib/python3.11/site-packages/x.pth": "import mine\n"},
    ),
    "a home with settings": Case(
        "import site, sys\nprint(site.ENABLE_USER_SITE, sys.path, sys.prefix)",
        files={"pyvenv.cfg": "home = /work", ".pythonrc": "1/0", "setup.cfg": "", "python311._pth": "x"},
    ),
    "the script imported and run again": Case(_AGAIN),
    "classes of the script in a pickle": Case(_PICKLE),
    "the script in doctest and unittest": Case(_DOCTEST),
    "hooks": Case(_HOOK),
    "the whole standard library's surface": Case(
        "import asyncio, ctypes, decimal, http.client, json, sqlite3, ssl, sys, unittest, xml.etree.ElementTree\n"
        "print(len(sys.modules), sorted(sys.modules), len(sys.path_importer_cache))"
    ),
}  # fmt: skip
