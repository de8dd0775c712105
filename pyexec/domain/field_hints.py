"""Hints for fields that a request does not have, by the name of the field."""

_OTHER_NAMES = {
    **dict.fromkeys(("packages", "dependencies", "libraries", "modules"), "requirements_txt"),
    **dict.fromkeys(("environment", "variables"), "env_vars"),
}
MEANT = {
    **_OTHER_NAMES,
    **dict.fromkeys(("argv", "arguments"), "script_args"),
    "input": "stdin",
    "time_limit": "config.timeout_seconds",
}
"""The fields that are meant by names that other services use, and that are not similar to the names here."""
SESSION_HINTS = {name: f"did you mean {meant!r}?" for name, meant in _OTHER_NAMES.items()}
"""Hints for fields that requests to open a session do not have."""
RUN_HINTS = {
    **{name: f"did you mean {meant!r}?" for name, meant in MEANT.items()},
    "session_id": "run code in a session with POST /api/v1/sessions/{id}/eval",
}
"""Hints for fields that requests to run code do not have."""
