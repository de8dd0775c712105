"""Hints for fields that a request does not have, by the name of the field."""

OTHER_NAMES = {
    **dict.fromkeys(("packages", "dependencies", "libraries", "modules"), "did you mean 'requirements_txt'?"),
    **dict.fromkeys(("environment", "variables"), "did you mean 'env_vars'?"),
}
"""Hints for names that other services give to fields, and that are not similar to the names here."""
RUN_HINTS = {
    **OTHER_NAMES,
    **dict.fromkeys(("argv", "arguments"), "did you mean 'script_args'?"),
    "input": "did you mean 'stdin'?",
    "time_limit": "did you mean 'config.timeout_seconds'?",
    "session_id": "run code in a session with POST /api/v1/sessions/{id}/eval",
}
"""Hints for fields that requests to run code do not have, by the name of the field."""
