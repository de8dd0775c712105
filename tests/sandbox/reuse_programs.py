"""Programs that look at their sandbox, and programs that leave something in it."""

STATE = """
import fcntl, json, os, resource, signal, socket, stat, sys

def entries(root):
    found = []
    for directory, folders, files in os.walk(root):
        for name in folders + files:
            path = os.path.join(directory, name)
            info = os.lstat(path)
            found.append((path, oct(info.st_mode), info.st_uid == os.getuid(), info.st_nlink))
    return sorted(found)

def mount(path):
    info, usage = os.stat(path), os.statvfs(path)
    own = (info.st_uid == os.getuid(), info.st_gid == os.getgid())
    return (oct(info.st_mode), own, os.listxattr(path), usage.f_bfree, usage.f_ffree)

def lines(path):
    try:
        return len(open(path).read().splitlines())
    except FileNotFoundError:
        return 0

def lock(path):
    with open(path) as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

own, parent = str(os.getpid()), str(os.getppid())
lock('/etc/hosts')
print(json.dumps({
    'sandbox': open('/proc/1/stat').read().rsplit(')', 1)[1].split()[19],
    'state': {
        'files': {path: entries(path) for path in ('/work', '/tmp', '/dev/shm', '/dev/mqueue', '/dev/pts')},
        'mounts': {path: mount(path) for path in ('/work', '/tmp', '/dev/shm')},
        'processes': [pid for pid in os.listdir('/proc') if pid.isdigit() and pid not in (own, parent)],
        'network': {name: lines('/proc/net/' + name) for name in
                    ('tcp', 'tcp6', 'udp', 'udp6', 'raw', 'unix', 'packet', 'netlink')},
        'ipc': [lines('/proc/sysvipc/' + kind) for kind in ('shm', 'msg', 'sem')],
        'limits': [resource.getrlimit(number) for number in range(16)],
        'signals': [line for line in open('/proc/self/status') if line.startswith(('Sig', 'Shd'))],
        'descriptors': sorted(os.listdir('/proc/self/fd')),
        'environment': sorted(os.environ.items()),
        'umask': os.umask(0),
        'priority': (os.getpriority(os.PRIO_PROCESS, 0), sorted(os.sched_getaffinity(0))),
        'directory': os.getcwd(),
        'cpus': open('/proc/self/oom_score_adj').read(),
    },
}))
"""
CLEAN = {
    "daemons": """
import os, signal, time
for number in range(5):
    if os.fork() == 0:
        os.setsid()
        for sign in range(1, 65):
            if sign not in (9, 19, 32, 33):
                signal.signal(sign, signal.SIG_IGN)
        if os.fork() == 0:
            time.sleep(60)
        os._exit(0)
""",
    "stopped and traced processes": """
import ctypes, os, signal
child = os.fork()
if child == 0:
    ctypes.CDLL(None).ptrace(0, 0, 0, 0)
    os.kill(os.getpid(), signal.SIGSTOP)
os.waitpid(child, os.WUNTRACED)
os.kill(os.getpid(), signal.SIGKILL)
""",
    "files without permissions": """
import os
for root in ('/work', '/tmp', '/dev/shm'):
    path = root
    for depth in range(20):
        path += '/' + 'n' * (255 if depth == 0 else 20)
        os.mkdir(path)
        open(path + '/file', 'w').write('x' * 5000)
    while path != root:
        os.chmod(path, 0)
        path = os.path.dirname(path)
""",
    "links": """
import os, socket
os.symlink('/', 'root'); os.symlink('.', 'loop'); os.symlink('/dev/shm', '/tmp/shm')
open('one', 'w').close(); os.link('one', 'two'); os.mkfifo('fifo')
socket.socket(socket.AF_UNIX).bind('/tmp/socket')
open('open', 'w').write('x' * 100000); held = open('open'); os.unlink('open')
""",
    "roots of mounts": """
import os
for root in ('/work', '/tmp'):
    os.chmod(root, 0)
    os.utime(root, (1, 1), follow_symlinks=False)
""",
    "shared memory": """
from multiprocessing import shared_memory, resource_tracker
block = shared_memory.SharedMemory('left', create=True, size=1 << 20)
block.buf[:4] = b'left'
resource_tracker.unregister(block._name, 'shared_memory')
""",
    "signals for the supervisor": """
import os, signal
for number in range(1, 65):
    try:
        for _ in range(3): os.kill(1, number)
    except OSError:
        pass
""",
    "limits, locks and timers": """
import fcntl, os, resource, signal, time
resource.setrlimit(resource.RLIMIT_NOFILE, (10, 10)); os.nice(19); os.umask(0o777); os.chdir('/')
held = [open(path) for path in ('/etc/hosts', '/etc/passwd', '/dev/null')]
for file in held:
    fcntl.flock(file, fcntl.LOCK_EX)
signal.setitimer(signal.ITIMER_REAL, 100)
os.sched_setaffinity(0, {0})
""",
    "sockets with data and descriptors in flight": """
import array, socket
a, b = socket.socketpair()
read, write = socket.socketpair()
socket.send_fds(a, [b'x' * 1000], [read.fileno(), write.fileno()])
named = socket.socket(socket.AF_UNIX); named.bind('\\0left'); named.listen()
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.bind(('127.0.0.1', 0))
udp.sendto(b'x' * 1000, udp.getsockname())
""",
    "memory and output": """
held = bytearray(40 << 20)
print('x' * 500_000)
raise SystemExit(3)
""",
}
"""Programs after which the sandbox is used again."""
DIRTY = {
    "times of a device": "import os; os.utime('/dev/null')",
    "times of a device, through a masked file": "import os; os.utime('/proc/keys')",
    "times of a link": "import os; os.utime('/dev/stdin', follow_symlinks=False)",
    "flags of a mount's root": """
import fcntl, os
fd = os.open('/work', os.O_RDONLY)
try:
    fcntl.ioctl(fd, 0x40086602, (0x40).to_bytes(8, 'little'))
except OSError:  # this kernel has no flags here, so leave something else
    import ctypes
    ctypes.CDLL(None).shmget(0x5EC12E7, ctypes.c_size_t(4096), 0o1666)
""",
    "deep directories": """
import os
for _ in range(500):
    os.mkdir('d'); os.chdir('d')
""",
    "System V objects": """
import ctypes
libc = ctypes.CDLL(None)
libc.shmget(0x5EC12E7, ctypes.c_size_t(4096), 0o1666); libc.msgget(0x5EC12E7, 0o1666)
assert libc.semget(0x5EC12E7, 1, 0o1666) >= 0
""",
    "connections that wait for their end": """
import socket
server = socket.create_server(('127.0.0.1', 0))
client = socket.create_connection(server.getsockname())
accepted, _ = server.accept()
accepted.send(b'x'); client.close(); accepted.close()
client = socket.create_connection(server.getsockname()); other, _ = server.accept()
client.shutdown(socket.SHUT_WR); other.close()
""",
}
"""Programs after which the sandbox is replaced."""
