"""Check the strings that a request passes to new processes: arguments, environment variables and setup commands.

Linux refuses to start a process if one string is longer than 128 KiB, or if all strings together exceed a quarter of
the stack limit, which is 8 MiB in a container (execve(2)). Such a program could only end with exit code 126."""

from collections.abc import Sequence

from pyexec.errors import InvalidRequest, quote

STRING_BYTES_MAX = 128 * 1024 - 1
"""Maximum length of one argument, variable or command. The kernel counts a NUL byte in addition."""
TOTAL_BYTES_MAX = 2 * 1024 * 1024 - 32 * 1024
"""Maximum size of all arguments and variables together. The rest is for the variables of the image."""
BYTES_PER_STRING = 9
"""Size that the kernel counts for each string in addition to its text: a NUL byte and a pointer."""


def check_process_arguments(
    script_args: Sequence[str], env_vars: Sequence[str], pre_commands: Sequence[str]
) -> None:
    """Raise `InvalidRequest` for the first string that no process can get."""
    for index, command in enumerate(pre_commands):
        where = f"pre_commands[{index}]"
        if not command.strip() or "\0" in command:
            raise InvalidRequest("a command cannot be empty or contain a NUL character", field=where)
        _size(command, "a command", where)
    total = 0
    for index, pair in enumerate(env_vars):
        where = f"env_vars[{index}]"
        name, equals, _ = pair.partition("=")
        if not equals or not name or "\0" in pair:
            raise InvalidRequest(
                f"{quote(pair)} is not an environment variable; write NAME=value", field=where
            )
        total = _add(total, _size(pair, "a variable", where), where)
    for index, argument in enumerate(script_args):
        where = f"script_args[{index}]"
        if "\0" in argument:
            raise InvalidRequest("an argument cannot contain a NUL character", field=where)
        total = _add(total, _size(argument, "an argument", where), where)


def _size(text: str, what: str, where: str) -> int:
    """Return the length in bytes; raise `InvalidRequest` if it is over the limit."""
    # No character takes less than a byte, so a text with too many characters need not be encoded.
    size = len(text) if len(text) > STRING_BYTES_MAX else len(text.encode())
    if size > STRING_BYTES_MAX:
        raise InvalidRequest(
            f"{what} may have at most {STRING_BYTES_MAX} bytes, the limit of Linux; send more as stdin or as a file",
            field=where,
        )
    return size


def _add(total: int, size: int, where: str) -> int:
    total += size + BYTES_PER_STRING
    if total > TOTAL_BYTES_MAX:
        raise InvalidRequest(
            f"env_vars and script_args may have at most {TOTAL_BYTES_MAX} bytes together, counting "
            f"{BYTES_PER_STRING} more for each; send more as stdin or as a file",
            field=where,
        )
    return total
