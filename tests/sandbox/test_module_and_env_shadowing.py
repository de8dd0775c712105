"""Test programs with hostile file names and environment variables: they affect only themselves."""

import pytest

from tests.support.attack import COMPLETED, Attack, end_of
from tests.support.cases import sampled

SHADOWED = ["ast", "os", "sys", "enum", "re", "json", "io", "time", "signal", "tarfile", "select", "struct",
            "socket", "contextlib", "functools", "collections", "fnmatch", "stat", "site", "sitecustomize",
            "usercustomize", "encodings", "codecs", "_ast", "builtins"]  # fmt: skip
TRAP = "open('/work/sprung', 'w').write('x')\nraise RuntimeError('trap')\n"


@pytest.mark.parametrize("evaluated", [False, True])
async def test_files_that_shadow_modules_do_not_affect_the_supervisor(
    attack: Attack, evaluated: bool
) -> None:
    """Only the program itself may import these files."""
    names = {f"{name}.py": TRAP for name in SHADOWED}
    source = "x = 6 * 7\nx"
    if evaluated:
        files = [{"name": name, "content": text} for name, text in names.items()]
        body = {"files": [{"name": "main.py", "content": source}, *files], "entrypoint": "main.py"}
        answer = await attack.api.eval({**body, "eval_last_expr": True})
        assert (answer.status, answer.document.get("result")) == (200, "42"), answer.document
    else:
        result = await attack(source, names, output_files=["main.py", "sprung"])
        assert end_of(result) == COMPLETED, result
        assert result["files"] == [{"path": "main.py", "size": len(source)}]


@sampled(
    "variables",
    [
        ["PYTHONPATH=/work"],
        ["PYTHONHOME=/work"],
        ["PYTHONSTARTUP=/work/trap.py"],
        ["PYTHONINSPECT=1"],
        ["LD_PRELOAD=/work/trap.so"],
        ["LD_LIBRARY_PATH=/work"],
        ["PATH=/work"],
        ["HOME=/nowhere", "TMPDIR=/nowhere"],
        ["PYTHONUNBUFFERED="],
        ["LC_ALL=C", "PYTHONIOENCODING=ascii"],
        ["A" * 200 + "=" + "B" * 100_000],
        ["LD_DEBUG=all"],
        ["MALLOC_PERTURB_=1", "GLIBC_TUNABLES=glibc.malloc.check=3"],
    ],
)
async def test_environment_variables_affect_only_the_program(attack: Attack, variables: list[str]) -> None:
    """The variables do not affect the supervisor: it still reports the end, and sends the output files."""
    result = await attack("print('on')", {"trap.py": TRAP}, env_vars=variables, output_files=["main.py"])
    assert result["status"] == "completed", result
    assert [file["path"] for file in result["files"]] == ["main.py"]
