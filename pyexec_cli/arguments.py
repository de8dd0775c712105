"""Find the command among the arguments: global flags may come before it, and `run` is the default."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from itertools import takewhile

import asyncclick


def command_first(
    arguments: Sequence[str],
    commands: Container[str],
    global_params: Sequence[asyncclick.Parameter],
    run_params: Callable[[], Sequence[asyncclick.Parameter]],
    *,
    completing: bool,
) -> list[str]:
    """Move the command to the front of the arguments.

    The command is the first argument that is neither a flag nor the value of a flag. If that argument is not a
    command, `run` is inserted. `completing` is true if a shell asks for completions.
    """
    if arguments[:1] == ["help"]:
        names = takewhile(lambda word: word != "help" and not word.startswith("-"), arguments[1:])
        return [*names, "--help"]  # the group reports a name that is not a command
    flags, all_global = _takes_value(global_params), True
    rest = iter(enumerate(arguments))
    for position, word in rest:
        if all_global and word in ("-h", "--help", "--version"):
            return list(arguments)
        if word == "-" or not word.startswith("-"):
            if word in commands:
                return [word, *arguments[:position], *arguments[position + 1 :]]
            break
        if all_global and _value_follows(word, flags) is None:
            flags, all_global = _takes_value(run_params()), False
        value_follows = _value_follows(word, flags)
        if value_follows is None:
            break
        if value_follows:
            next(rest, None)
    else:
        # While a shell completes the first word, it may still become a command.
        if all_global and completing:
            return list(arguments)
    return ["run", *arguments]


def _takes_value(params: Sequence[asyncclick.Parameter]) -> dict[str, bool]:
    """Map each flag name to True if the flag takes a value. Every command has --help."""
    takes_value = {name: not getattr(option, "is_flag", False) for option in params for name in option.opts}
    return {**takes_value, "-h": False, "--help": False}


def _value_follows(word: str, flags: Mapping[str, bool]) -> bool | None:
    """Return True if the next argument is the value of this flag, and None if the flag is unknown."""
    if word.startswith("--"):
        name, has_value, _ = word.partition("=")
        return not has_value and flags[name] if name in flags else None
    for position, letter in enumerate(word[1:], 2):  # -qv, -eNAME=value
        takes_value = flags.get(f"-{letter}")
        if takes_value is None:
            return None
        if takes_value:
            return position == len(word)
    return False
