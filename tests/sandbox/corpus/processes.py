"""Programs that start processes, threads and event loops."""

from tests.sandbox.corpus.case import Case

_POOL = """
import multiprocessing, os, sys
def work(x):
    return x * x, __name__, sys.argv, multiprocessing.current_process().name.split('-')[0]
if __name__ == '__main__':
    context = multiprocessing.get_context(%r)
    with context.Pool(2) as pool:
        print(sorted(pool.map(work, range(3))))
    queue = context.SimpleQueue()
    process = context.Process(target=queue.put, args=('from a child',), name='one')
    process.start(); print(queue.get()); process.join(); print(process)
"""

_CHILD = """
import os, subprocess, sys
show = 'import os, sys; print(sys.argv, sys.flags, sys.path, os.getcwd(), sorted(os.listdir("/proc/self/fd")))'
for options in ([], ['-I'], ['-u', '-W', 'error']):
    subprocess.run([sys.executable, *options, '-c', show, 'x'])
subprocess.run([sys.executable, 'main.py', 'again'] if len(sys.argv) == 1 else ['true'])
print(os.system('exit 3'), os.popen('echo out').read(), subprocess.run('cat; exit 4', shell=True).returncode)
"""

_FORKS = """
import atexit, os, sys
atexit.register(print, 'at exit', flush=True)
if not (pid := os.fork()):
    print('child', len(os.listdir('/proc/self/fd')), open('main.py').readline())
    sys.exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
os.execv(sys.executable, [sys.executable, '-c', 'import sys; print(sys.argv, sys.orig_argv)'])
"""

_LOOP = """
import asyncio, signal, sys
async def main():
    loop = asyncio.get_running_loop()
    heard = asyncio.Event()
    loop.add_signal_handler(signal.SIGUSR1, heard.set)
    signal.raise_signal(signal.SIGUSR1)
    await heard.wait()
    process = await asyncio.create_subprocess_exec(sys.executable, '-c', 'print(input())', stdin=-1, stdout=-1)
    print(await process.communicate(b'through a child\\n'))
    try:
        await loop.connect_read_pipe(asyncio.Protocol, sys.stdin)
    except (ValueError, OSError) as error:
        print(error)
    async with asyncio.timeout(5):
        print(await asyncio.gather(*(asyncio.to_thread(pow, 2, n) for n in range(3))))
    raise LookupError('out of the loop')
asyncio.run(main())
"""

_SIGNALS = """
import os, signal, time
for number in sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}):
    signal.signal(number, lambda n, frame: print(n, frame.f_code.co_name))
for number in (1, 2, 3, 10, 13, 14, 15, 17, 25):
    os.kill(os.getpid(), number)
signal.setitimer(signal.ITIMER_REAL, 0.01)
signal.pause()
print(signal.sigtimedwait([signal.SIGUSR2], 0))
"""

PROCESSES = {
    "processes that are forked": Case(_POOL % "fork"),
    "processes that are spawned": Case(_POOL % "spawn"),
    "processes of a fork server": Case(_POOL % "forkserver"),
    "the interpreter again": Case(_CHILD, stdin="kept for the child\n"),
    "forks and executions": Case(_FORKS),
    "processes and threads left running": Case(
        "import subprocess, threading, time\nsubprocess.Popen(['sleep', '60'])\n"
        "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\nprint('left')"
    ),
    "executors": Case(
        "from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor\n"
        "for kind in (ThreadPoolExecutor, ProcessPoolExecutor):\n"
        "    with kind(2) as pool: print(list(pool.map(abs, (-1, -2))), pool.submit(divmod, 1, 0).exception())"
    ),
    "a loop": Case(_LOOP, stdin="x"),
    "signals": Case(_SIGNALS),
    "a limit of its own": Case(
        "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (10, 10))\n[open('main.py') for _ in range(20)]"
    ),
    "a memory limit of its own": Case(
        "import resource\nresource.setrlimit(resource.RLIMIT_AS, (2**28, 2**28))\nbytearray(2**29)"
    ),
    "a trace": Case(
        "import sys\nseen = []\nsys.settrace(lambda f, e, a: seen.append((f.f_code.co_name, e, f.f_lineno)))\n"
        "def f(): pass\nf()\nsys.settrace(None)\nprint(seen)"
    ),
    "a profile": Case(
        "import cProfile, pstats\nprofile = cProfile.Profile()\nprofile.runcall(sum, range(9))\n"
        "print(sorted(pstats.Stats(profile).stats))"
    ),
}
