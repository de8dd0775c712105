"""Run the example of docs/webhooks.md that verifies a signature."""

import re
import time
from typing import Any

from pyexec.domain.webhooks import signed_headers
from tests.support.paths import ROOT
from tests.support.webhooks import OLD_SECRET, OLD_SECRET_TEXT, SECRET, SECRET_TEXT

PAGE = (ROOT / "docs" / "webhooks.md").read_text()


def test_the_example_accepts_genuine_messages_only() -> None:
    (example,) = re.findall(r"```python\n(.+?)```", PAGE, re.S)
    names: dict[str, Any] = {}
    exec(example, names)
    is_genuine, now, body = names["is_genuine"], int(time.time()), b'{"type": "execution.completed"}'
    rotating = signed_headers("exe_1", now, body, [SECRET, OLD_SECRET])
    assert is_genuine(rotating, body, SECRET_TEXT)
    assert is_genuine(rotating, body, OLD_SECRET_TEXT)
    assert not is_genuine(rotating, body + b" ", SECRET_TEXT)
    assert not is_genuine({**rotating, "webhook-id": "exe_2"}, body, SECRET_TEXT)
    assert not is_genuine(signed_headers("exe_1", now, body, [OLD_SECRET]), body, SECRET_TEXT)
    assert not is_genuine(signed_headers("exe_1", now - 3600, body, [SECRET]), body, SECRET_TEXT)
