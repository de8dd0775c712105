"""Test `completion`: the scripts for all shells, and the candidates in bash."""

import pytest

from tests.support.cases import sampled


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_for_each_shell(lone_program, shell):
    done = lone_program.run("completion", shell)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"python-executor" in done.stdout


def test_completion_of_an_unknown_shell_is_an_error(lone_program):
    for arguments in ((), ("tcsh",)):
        done = lone_program.run("completion", *arguments)
        assert (done.returncode, done.stdout) == (2, b"")
        assert b"Error: " in done.stderr


@sampled(
    ("words", "offered"),
    [
        (("fo",), {"follow"}),
        (
            ("",),
            {
                "run",
                "submit",
                "follow",
                "logs",
                "kill",
                "list",
                "timeline",
                "cluster",
                "eval",
                "session",
                "repl",
                "mcp",
                "version",
                "completion",
            },
        ),
        (("--server", "x", "ki"), {"kill"}),
        (("run", "--pre"), {"--pre-command"}),
        (("tool.py", "--cp"), {"--cpu", "--cpus", "--cpu-seconds"}),
        (("--mem",), {"--memory"}),
        (("list", "--status", "ki"), {"killed"}),
        (("logs", "--stream", ""), {"stdout", "stderr"}),
    ],
    every=4,
)
def test_bash_completion(lone_program, words, offered):
    (lone_program.directory / "python-executor").symlink_to(lone_program.path)
    line = " ".join(f"'{word}'" for word in words)
    script = f"""
        PATH=$PWD:$PATH
        source <($P completion bash)
        complete=$(complete -p python-executor)
        function=${{complete##*-F }}
        COMP_WORDS=(python-executor {line}) COMP_CWORD={len(words)}
        ${{function% *}} python-executor '{words[-1]}' 2>&-
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = lone_program.shell(script)
    assert {word.strip() for word in done.stdout.decode().splitlines()} == offered
