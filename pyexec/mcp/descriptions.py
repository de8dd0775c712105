"""Describe the tools for a model: what the sandbox allows, with the limits of the server."""

from __future__ import annotations

from pyexec.mcp.schemas import ApiSchemas

SUBMITTED_CODE = (
    "Python source code. It runs as /work/main.py. Print what you need: the last expression is not returned."
)
CODE = (
    "Python source code. It runs as /work/main.py. The value of the last expression is returned as `result`."
)
FILES = "More files to put into /work before the run, such as modules and data. Their text is UTF-8."
FILES_EXAMPLES = [[{"name": "data.csv", "content": "1,2\n"}]]
INLINE_REQUIREMENTS = (
    "If `requirements` is left out, carry out the `# /// script` block of the code (PEP 723): install its "
    "`dependencies`, and run in an image whose Python satisfies `requires-python`. false ignores the block."
)
NETWORK = "Allow the program to use the network. Without it, the program has no network at all."
SUBMIT = (
    "Start Python code in the background and return its execution_id at once. Use it for code that runs longer than "
    "a minute; wait for the result with get_execution. The arguments and the sandbox are those of run_python, but the "
    "value of the last expression is not returned: print it."
)
GET = (
    "Return the state and the output of an execution: its own result once it has ended, its output so far before. "
    "With wait_seconds, wait for its end first. Executions are deleted some minutes after their end."
)
KILL = "Kill an execution, pending or running. If it has already ended, nothing changes. Returns its status."
LIST = "List executions, newest first, without their output. Continue with cursor=next_cursor."
READ_FILE = (
    "Return one of the files that the result of an ended execution lists in `files`. An image is returned as an "
    "image, UTF-8 as text, anything else as base64."
)

RUN_IN_SESSION = (
    "Run the code in this session, which open_session has opened: variables, imports and files of earlier calls are "
    "there. Only `timeout_seconds` can be combined with it. Without it, each call starts a new interpreter."
)
SESSION_ID = "Id of the session, from open_session."
SESSION_PATH = "Path of the file, relative to the session's working directory /work."
OPEN_SESSION = (
    "Open a session: a Python interpreter that keeps variables, imports and files between calls of run_python with its "
    "session_id. Use it to work on the same data in several steps. It closes by itself after some time without calls; "
    "close it earlier with close_session."
)
CLOSE_SESSION = "Close a session. Its variables and its files are deleted. Returns its state."
INTERRUPT_SESSION = (
    "Raise KeyboardInterrupt in the code that runs in a session, for example if it takes too long. The variables stay. "
    "Returns whether code was running."
)
LIST_SESSION_FILES = "List the files of a session with their sizes in bytes."
FILE_PATTERN = (
    "Pattern of the paths, relative to /work: `*.csv` matches in /work itself, `**/*.csv` at any depth. "
    "Default: all files."
)
WRITE_SESSION_FILE = "Write a file into a session, as text or as base64. An existing file is replaced."
FILE_TEXT = "The contents, as UTF-8 text."
FILE_BASE64 = "The contents of a binary file, as base64."
READ_SESSION_FILE = (
    "Return a file of a session. An image is returned as an image, UTF-8 as text, anything else as base64."
)


def run_python(api: ApiSchemas) -> str:
    """Return the description of `run_python`, with the server's limits."""
    image = api.field("EvalRequest", "docker_image")["examples"][0]
    displays = (
        "Figures of matplotlib and other images that the program shows are returned as images. "
        if api.has("Result", "displays")
        else ""
    )
    return (
        "Run Python code in an isolated sandbox, wait for its end, and return stdout, stderr, the exit code and the "
        f"value of the last expression. {displays}{_freshness(api)}\n"
        f"- Python and its standard library come from the image {image}. List other packages in `requirements`; they "
        "are installed before the run and cached.\n"
        "- There is no network unless `network` is true. Package installation does not need `network`.\n"
        "- The working directory is /work; the program may write there and to /tmp. To get files back, name them in "
        "`output_files`, and read them with read_output_file.\n"
        f"- Limits: {_limits(api)}."
    )


def _freshness(api: ApiSchemas) -> str:
    text = "Each call starts a new interpreter: no variable and no file of an earlier call is left"
    has_sessions = api.has_component("SessionView")
    return f"{text}, unless it names a session (open_session)." if has_sessions else f"{text}."


def instructions(api: ApiSchemas) -> str:
    """Return the instructions of the server, which a host gives to the model."""
    sessions = (
        "To work on the same data in several steps, call open_session, and then run_python with its session_id. "
        if api.has_component("SessionView")
        else ""
    )
    return (
        "Runs untrusted Python code in isolated sandboxes. Use run_python for code that takes seconds; "
        f"submit_python and get_execution for code that takes minutes or hours. {sessions}"
        f"Limits of a run: {_limits(api)}. No network unless asked for."
    )


def _limits(api: ApiSchemas) -> str:
    parts = []
    for name, unit, what in (
        ("timeout_seconds", "s", "time"),
        ("memory_mb", "MiB", "memory"),
        ("disk_mb", "MiB", "files"),
    ):
        schema = api.field("RequestedLimits", name)
        text = f"{schema['default']:g} {unit} of {what}"
        if name == "timeout_seconds" and "maximum" in schema:
            text += f" (at most {schema['maximum']:g} s with `timeout_seconds`)"
        parts.append(text)
    return ", ".join(parts)
