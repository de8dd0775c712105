"""Test `files_skipped`: links, special files, names and patterns for which no file comes back, and why."""

from tests.support.api import Api
from tests.support.output_files import archive, download, paths, skipped


async def test_patterns_without_a_match_give_an_empty_list(api: Api) -> None:
    result = await api.run("print()", output_files=["no/such.txt", "/work/*.png", "main.py/x", "main.py"])
    assert result["files"] == [{"path": "main.py", "size": 7}]
    assert result["files_skipped"] == [
        {"pattern": "no/such.txt", "reason": "no_match"},
        {"pattern": "/work/*.png", "reason": "no_match"},
        {"pattern": "main.py/x", "reason": "no_match"},
    ]
    assert not {"files_truncated", "files_skipped_truncated"} & set(result)
    result = await api.run("print()", output_files=["out"])
    assert (result["files"], skipped(result)) == ([], {"out": "no_match"})
    assert await archive(api, result["execution_id"]) == {}


TRAPS = """
import os, socket
os.makedirs('real'); open('real/file', 'w').write('mine')
os.symlink('/etc/passwd', 'passwd'); os.symlink('/etc', 'etc'); os.symlink('real', 'way'); os.symlink('.', 'loop')
os.symlink('/proc/1/environ', 'environ'); os.symlink('nowhere', 'dangling'); os.link('real/file', 'hard')
os.mkfifo('fifo'); socket.socket(socket.AF_UNIX).bind('socket')
"""


async def test_only_regular_files_come_and_links_only_from_work(api: Api) -> None:
    patterns = ["*", "etc/passwd", "way/file", "passwd", "environ", "loop/**", "fifo", "socket", "real/file"]
    result = await api.run(TRAPS, output_files=patterns)
    assert paths(result) == ["hard", "main.py", "real/file", "way/file"]
    for path in ("hard", "way/file"):
        assert await download(api, result["execution_id"], path) == b"mine"
    assert skipped(result) == {
        "passwd": "link_outside",
        "etc": "link_outside",
        "environ": "link_outside",
        "loop": "link_loop",
        "dangling": "link_broken",
        "fifo": "not_a_file",
        "socket": "not_a_file",
    }
    assert not {"files_truncated", "files_skipped_truncated"} & set(result)


LINKS = """
import os
os.makedirs('runs/2'); open('runs/2/model.txt', 'w').write('best')
os.symlink('/work/runs/2', 'latest'); os.symlink('latest/model.txt', 'model'); os.symlink('../..', 'runs/2/up')
"""


async def test_links_below_work_bring_what_they_lead_to(api: Api) -> None:
    result = await api.run(LINKS, output_files=["model", "latest", "runs"])
    assert await archive(api, result["execution_id"]) == dict.fromkeys(
        ("latest/model.txt", "model", "runs/2/model.txt"), b"best"
    )
    assert skipped(result) == {"latest/up": "link_loop", "runs/2/up": "link_loop"}


async def test_files_that_cannot_be_read_are_reported(api: Api) -> None:
    source = """
import os
open('closed', 'w').close(); os.chmod('closed', 0)
os.mkdir('dir'); open('dir/a', 'w').close(); os.chmod('dir', 0)
"""
    result = await api.run(source, output_files=["**", "dir/a"])
    assert (paths(result), result["files_truncated"]) == (["main.py"], True)
    assert skipped(result) == {"closed": "unreadable", "dir": "unreadable"}
    result = await api.run("import os; os.chmod('.', 0)", output_files=["main.py", "x"])
    assert (result["files"], result["files_truncated"]) == ([], True)
    assert skipped(result) == {"main.py": "unreadable", "x": "unreadable"}


async def test_a_program_cannot_fill_the_result_with_skipped_files(api: Api) -> None:
    source = "import os\nfor n in range(3000): os.symlink('/', f'{n:04}')\nopen('good', 'w').close()"
    result = await api.run(source, output_files=["*", "out"])
    assert set(paths(result)) == {"good", "main.py"}
    assert result["files_skipped"][0] == {"pattern": "out", "reason": "no_match"}
    assert result["files_skipped"][1:] == [{"path": f"{n:04}", "reason": "link_outside"} for n in range(100)]
    assert result["files_skipped_truncated"] is True
    assert "files_truncated" not in result


NAMES = """
for name in ('-rf', 'with space', 'ü€𝄞', 'per%20cent%', 'a?b#c&d+e', "quote'\\"", 'back\\\\slash', 'x' * 255):
    open(name, 'w').write(name)
for name in (b'new\\nline', b'\\x1b[2J', b'\\xff\\xfe', b'tab\\t', '\\u2028'.encode(), b'\\x7f'):
    open(name, 'w')
"""


async def test_files_with_unsafe_names_are_left_out(api: Api) -> None:
    result = await api.run(NAMES, output_files=["**"])
    assert result["files_truncated"] is True
    good = ["-rf", "with space", "ü€𝄞", "per%20cent%", "a?b#c&d+e", "quote'\"", "back\\slash", "x" * 255]
    assert sorted(paths(result)) == sorted([*good, "main.py"])
    bad = ["new\ufffdline", "\ufffd[2J", "\ufffd\ufffd", "tab\ufffd", "\ufffd"]
    assert skipped(result) == dict.fromkeys(bad, "invalid_name")
    for name in good:
        assert await download(api, result["execution_id"], name) == name.encode()
    assert set(await archive(api, result["execution_id"])) == {*good, "main.py"}
