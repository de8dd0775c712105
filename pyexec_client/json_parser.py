"""Parse the JSON of a server."""

import json
from typing import Any


def parse_json(text: str | bytes) -> Any:
    """Parse JSON, with None for each number that Python cannot hold. Raise ValueError if it is not JSON.

    Python rejects integers of more than 4300 digits. Such a number must not hide a result, or all executions of a list.
    """
    try:
        return json.loads(text, parse_int=_integer)
    except RecursionError as error:
        raise ValueError("JSON is nested too deeply") from error


def _integer(digits: str) -> int | None:
    try:
        return int(digits)
    except ValueError:
        return None
