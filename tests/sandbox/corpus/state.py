"""Programs that report the state of their process at the start."""

from tests.sandbox.corpus.case import Case

_PROCESS = """
import fcntl, os, re, resource
STEADY = 'Name Umask State TracerPid Uid Gid FDSize Groups Threads SigPnd ShdPnd SigBlk SigIgn SigCgt CapInh CapPrm ' \\
         'CapEff CapBnd CapAmb NoNewPrivs Seccomp Seccomp_filters VmExe VmLib VmStk VmLck'.split()
for line in open('/proc/self/status'):
    if line.split(':')[0] in STEADY:
        print(line.strip())
for number in range(64):
    try:
        info = os.fstat(number)
        place = re.sub('[0-9]+', 'N', os.readlink(f'/proc/self/fd/{number}'))
        print(number, place, info.st_mode, info.st_size, os.get_inheritable(number), fcntl.fcntl(number, fcntl.F_GETFL))
    except OSError:
        continue
for name in ('oom_score_adj', 'cmdline', 'personality', 'wchan', 'limits', 'cgroup', 'mountinfo'):
    text = re.sub('[0-9a-f]{64}|[0-9]+ [0-9]+ [0-9]+:[0-9]+|relatime.*', 'X', open(f'/proc/self/{name}').read())
    print(sorted(text.splitlines()))  # Docker mounts what is asked for in any order
print([resource.getrlimit(number) for number in range(16)])
print(os.getpgid(0) == os.getpid() == os.getsid(0), os.getppid(), os.nice(0), os.sched_getscheduler(0))
print(os.getcwd(), os.listdir(), os.getgroups(), os.umask(0), os.sched_getaffinity(0))
print(sorted((k, v) for k, v in os.environ.items() if k != 'HOSTNAME'))
print([pair for pair in open('/proc/self/environ').read().split('\\0') if not pair.startswith('HOSTNAME')])
used = resource.getrusage(resource.RUSAGE_SELF)
print(resource.getpagesize(), used.ru_utime + used.ru_stime > 0, os.times().children_user)
"""

_INTERPRETER = """
import gc
print(gc.get_count()[1:], [s['collections'] for s in gc.get_stats()], len(gc.get_objects()), gc.isenabled())
import re, signal, sys, threading, warnings
def show(value):
    print(re.sub('0x[0-9a-f]+', 'ADDRESS', repr(value)))
show(sys.argv), show(sys.orig_argv), show(sys.flags), show(sys.path), show(sys._xoptions)
show(sorted(sys.modules)), show(sys.path_importer_cache), show(sys.meta_path), show(sys.path_hooks)
show(globals()), show(vars(sys.modules['__main__']) is globals()), show(__builtins__), show(__loader__.path)
show((sys.getrecursionlimit(), sys.getswitchinterval(), sys.gettrace(), sys.getprofile(), sys.dont_write_bytecode))
show((sys.executable, sys.prefix, sys.exec_prefix, sys.base_prefix, sys.pycache_prefix, sys.version, sys.abiflags))
show((sys.getdefaultencoding(), sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()))
show((sys.displayhook, sys.excepthook, sys.unraisablehook, sys.breakpointhook, hasattr(sys, 'ps1')))
for stream in (sys.stdin, sys.stdout, sys.stderr):
    show((stream, stream.encoding, stream.errors, stream.isatty(), stream.line_buffering, stream.write_through,
          stream.newlines, stream.seekable(), stream.buffer, stream.fileno()))
show((sys.__stdin__ is sys.stdin, sys.__stdout__ is sys.stdout, sys._git, sys.warnoptions, warnings.filters))
show({number: signal.getsignal(number) for number in signal.valid_signals()})
show((signal.pthread_sigmask(signal.SIG_BLOCK, ()), signal.getitimer(signal.ITIMER_REAL)))
show(([thread.name for thread in threading.enumerate()], threading.stack_size()))
frame = sys._getframe()
show((frame.f_back, frame.f_code, frame.f_code.co_name, frame.f_code.co_flags, frame.f_lineno))
import locale, time
show((locale.setlocale(locale.LC_ALL), time.tzname, time.get_clock_info('perf_counter').implementation))
"""

STATE = {
    "the process": Case(_PROCESS),
    "the interpreter": Case(_INTERPRETER),
    "the recursion limit": Case(
        """
import sys
def deeper(depth):
    try:
        return deeper(depth + 1)
    except RecursionError:
        return depth
print(deeper(0))
sys.setrecursionlimit(5000)
print(deeper(0))
"""
    ),
    "hash seeds differ, and the order of a dict does not": Case(
        "import sys\nprint(sys.hash_info, list({'b': 1, 'a': 2}), sys.flags.hash_randomization)"
    ),
    "files and file systems": Case(
        """
import os
print([name for name in sorted(os.listdir('/dev'))], os.stat('main.py').st_mode, os.stat('main.py').st_nlink)
print(os.statvfs('.').f_ffree, os.statvfs('.').f_bfree, os.statvfs('/tmp').f_ffree, os.listdir('/tmp'))
print(open('main.py').read())
"""
    ),
    "stdin line by line": Case(
        "import sys\nprint(input())\nprint(input('? '))\nfor line in sys.stdin: print(repr(line))",
        stdin="one\ntwo\nthree\r\nfour",
    ),
    "stdin at once": Case(
        "import sys\nprint(sys.stdin.buffer.tell(), sys.stdin.read(2), sys.stdin.buffer.peek(3), sys.stdin.read())",
        stdin="ü€ and more\n" * 9000,
    ),
    "stdin by its descriptor": Case(
        """
import os, sys
print(os.read(0, 3), os.lseek(0, 0, os.SEEK_CUR), os.fstat(0).st_size, open('/dev/stdin').read(), sys.stdin.read())
""",
        stdin="abcdef",
    ),
    "stdin of a child": Case(
        "import subprocess, sys\nprint(sys.stdin.readline())\nsubprocess.run(['cat'])", stdin="first\nrest\n"
    ),
    "no stdin": Case("try:\n    input()\nexcept EOFError as error:\n    print(repr(error), flush=True)"),
}
