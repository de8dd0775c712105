"""Programs with arguments, environment variables and other entrypoints, in all kinds of notation."""

from tests.sandbox.corpus.case import Case

_ARGUMENTS = """
import argparse, multiprocessing, os, subprocess, sys
def show(*_): print(sys.argv)
print(sys.argv, sys.orig_argv)
parser = argparse.ArgumentParser()
parser.add_argument('--name'), parser.add_argument('rest', nargs='*')
print(parser.parse_args(), parser.prog)
if __name__ == '__main__':
    process = multiprocessing.get_context('spawn').Process(target=show)
    process.start(), process.join()
    subprocess.run([sys.executable, '-c', 'import sys; print(sys.orig_argv)', *sys.argv])
"""

_VARIABLES = """
import ctypes, os, subprocess, sys
def shown(variables): return sorted((k, v) for k, v in variables.items() if k != 'HOSTNAME')
print(shown(os.environ), shown(os.environb), os.getenv('A'), os.get_exec_path())
ctypes.pythonapi.getenv.restype = ctypes.c_char_p
print([ctypes.pythonapi.getenv(name) for name in (b'A', b'EMPTY', b'NONE', b'PYTHONPATH')])
print(subprocess.run(['env'], stdout=-1, text=True).stdout.count('A='), os.popen('echo "$A $EMPTY"').read())
subprocess.run([sys.executable, '-c', 'import os, sys; print(os.getenv("A"), sys.path, sys.flags)'])
os.execvp('env', ['env', '-u', 'HOSTNAME'])
"""

_READ_AT_START = """
import locale, os, site, sys, time
print(sys.flags, time.tzname, time.strftime('%Z', time.localtime(0)), locale.setlocale(locale.LC_ALL, ''))
print(sys.path, site.USER_BASE, sys.getfilesystemencoding(), sys.stdout.encoding, sys.stdout.line_buffering)
print(sorted((k, v) for k, v in os.environ.items() if k != 'HOSTNAME'), sys.stdout.write_through, sys.warnoptions)
"""

_PLACE = "import sys\nprint(sys.argv, sys.orig_argv, sys.path, __file__, __spec__)\n1 / 0"
_ALL_KINDS = ["", " ", "--name", "ü€𝄞", "a\nb", "-c", "--", "*", "'\""]

PARAMETERS = {
    "arguments": Case(_ARGUMENTS, metadata={"script_args": ["--name", "x", "rest"]}),
    "arguments of all kinds": Case("import sys\nprint(sys.argv)", metadata={"script_args": _ALL_KINDS}),
    "many arguments": Case("import sys\nprint(sys.argv)", metadata={"script_args": ["x" * 99] * 900}),
    "a very long argument": Case("import sys\nprint(sys.argv)", metadata={"script_args": ["x" * 131_071]}),
    "variables": Case(
        _VARIABLES, metadata={"env_vars": ["A=b=c", "EMPTY=", "A=2", "PATH=/usr/bin:/bin", "Ü=ü", "X=a\nb"]}
    ),
    "variables and arguments": Case(_VARIABLES, metadata={"env_vars": ["A=b"], "script_args": ["x"]}),
    "a home": Case(_READ_AT_START, metadata={"env_vars": ["HOME=/tmp"]}),
    "a time zone": Case(_READ_AT_START, metadata={"env_vars": ["TZ=XYZ-3"]}),
    "a locale": Case(_READ_AT_START, metadata={"env_vars": ["LC_ALL=POSIX"]}),
    "unbuffered": Case(_READ_AT_START, metadata={"env_vars": ["PYTHONUNBUFFERED=x"]}),
    "a path": Case(
        _READ_AT_START + "import usercustomize, mine",
        files={"lib/usercustomize.py": "print('customized')", "lib/mine.py": "print('mine')"},
        metadata={"env_vars": ["PYTHONPATH=/work/lib:more"]},
    ),
    "settings of the interpreter": Case(
        _READ_AT_START,
        metadata={"env_vars": ["PYTHONHASHSEED=1", "PYTHONOPTIMIZE=1", "PYTHONIOENCODING=latin-1"]},
    ),
    "another entrypoint": Case(
        "", files={"app.py": _PLACE}, metadata={"entrypoint": "app.py", "script_args": ["x"]}
    ),
    "an entrypoint in a folder": Case(
        "", files={"pkg/app.py": _PLACE}, metadata={"entrypoint": "pkg/app.py", "env_vars": ["A=b"]}
    ),
}
