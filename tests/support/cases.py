"""Parameters and examples of which `make test` runs some, and `make soak` all."""

from collections.abc import Iterable, Sequence
from typing import Any
from zlib import crc32

import pytest
from hypothesis import settings

ParameterSet = type(pytest.param())


def sampled(
    names: str | Sequence[str], cases: Iterable[Any], *, every: int = 3, **options: Any
) -> pytest.MarkDecorator:
    """Parametrize a test. Mark all cases as `full` except the first and every `every`-th case after it."""
    alone = isinstance(names, str) and "," not in names
    parameters = []
    for number, case in enumerate(cases):
        marks = [pytest.mark.full] if number % every else []
        if isinstance(case, ParameterSet):
            parameters.append(pytest.param(*case.values, id=case.id, marks=[*case.marks, *marks]))
        else:
            parameters.append(pytest.param(*([case] if alone else case), marks=marks))
    return pytest.mark.parametrize(names, parameters, **options)


def keep_one_variant(test: pytest.Function, parameter: str, values: Sequence[str]) -> None:
    """Mark a test as `full`, unless the value of its parameter is the one that `make test` runs for this test."""
    value = test.callspec.params[parameter]
    case = test.nodeid.replace(value, "", 1)
    if value != values[crc32(case.encode()) % len(values)]:
        test.add_marker(pytest.mark.full)


def examples(count: int) -> int:
    """Return how many examples of a property to try: `count` in `make soak`, fewer in `make test`."""
    thorough = settings.get_profile("thorough").max_examples
    return max(1, count * settings.default.max_examples // thorough)
