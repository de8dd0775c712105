"""Test the output of the script: unchanged, and as it is produced."""

import hashlib
import os

from tests.cli.conftest import read_until


def test_bytes_are_unchanged(program):
    code = b"import os\nos.write(1, bytes(range(256)))\nos.write(2, bytes(range(255, -1, -1)))"
    done = program.run(stdin=code)
    assert done.stdout == bytes(range(256))
    assert done.stderr == bytes(range(255, -1, -1))


def test_output_is_complete(program):
    assert program.run(stdin=b"print('no end', end='')").stdout == b"no end"
    code = b"import random, sys\nrandom.seed(1)\nsys.stdout.buffer.write(random.randbytes(5_000_000))"
    done = program.run(
        stdin=code + b"\nimport hashlib\nrandom.seed(1)\n"
        b"sys.stderr.write(hashlib.sha256(random.randbytes(5_000_000)).hexdigest())"
    )
    assert len(done.stdout) == 5_000_000
    assert hashlib.sha256(done.stdout).hexdigest() == done.stderr.decode()


def test_both_streams_keep_their_order(program):
    # Pause between writes: the order of two pipes that are written at the same time is not defined.
    code = "import os, time\nfor i in range(4):\n os.write(1 + i % 2, b'%d' % i)\n time.sleep(0.2)"
    program.file("main.py", code)
    assert program.shell("$P main.py 2>&1").stdout == b"0123"


def test_output_arrives_while_the_program_runs(program):
    program.file("main.py", "import time\nprint('first', flush=True)\ntime.sleep(600)")
    with program.started("main.py") as process:
        assert read_until(process.stdout, b"\n") == b"first\n"
        assert process.poll() is None
        process.terminate()
        assert process.wait() == 143


def test_output_on_a_terminal(program):
    controller, terminal = os.openpty()
    with program.started("-q", stdin=-1, stdout=terminal) as process:
        os.close(terminal)
        process.stdin.write(b"print('on a terminal')")
        process.stdin.close()
        assert process.wait() == 0
        assert os.read(controller, 1000) == b"on a terminal\r\n"
    os.close(controller)


def test_a_value_that_was_cut_is_reported(program):
    done = program.run("eval", "'x' * 100_000")
    assert (done.returncode, len(done.stdout)) == (0, 64 * 1024 + 1)
    assert done.stderr == b"python-executor: only the beginning of result was stored\n"
