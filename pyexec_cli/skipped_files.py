"""Say which output files are missing, and why."""

from __future__ import annotations

from pyexec_client import Result, SkippedFile

from .console import Console

_NOTES_MAX = 10
_REASONS = {
    "not_a_file": "not a regular file",
    "link_outside": "the link leads out of /work",
    "link_broken": "the link leads nowhere",
    "link_loop": "the link leads to a directory that contains it",
    "setup_file": "a file of the setup",
    "invalid_name": "the path is too long or is not valid text",
    "too_large": "the size limit is exceeded",
    "too_many": "the limit on the number of files is exceeded",
    "too_deep": "the directory is nested too deeply",
    "timeout": "collecting the files took too long",
    "unreadable": "reading it failed",
    "not_collected": "the server could not collect the files",
}


def print_skipped_files(result: Result, console: Console) -> None:
    """Print a message for each output file that is missing, up to a limit."""
    for skipped in result.files_skipped[:_NOTES_MAX]:
        console.info(_note(skipped))
    if len(result.files_skipped) > _NOTES_MAX or result.files_skipped_truncated:
        console.info("more output files were skipped")
    if result.files_truncated and not result.files_skipped:  # a server of an earlier version gives no reasons
        console.info("some output files are missing: they exceed the size limit, or could not be collected")


def _note(skipped: SkippedFile) -> str:
    reason = _REASONS.get(skipped.reason, skipped.reason)
    if skipped.pattern is None:
        return f"skipped '{skipped.path}': {reason}"
    if skipped.reason == "no_match":
        return f"no file matches '{skipped.pattern}'"
    return f"files are missing for '{skipped.pattern}': {reason}"
