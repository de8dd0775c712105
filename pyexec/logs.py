"""Write the server's log lines to standard error, as text for people or as JSON for programs."""

import json
import logging
import re
import sys
from datetime import UTC, datetime
from textwrap import indent
from typing import Any, Final

from aiohttp.http_exceptions import HttpProcessingError

from pyexec.correlation import current_correlation

FIELDS: Final = "fields"
"""The attribute of a log record that holds additional fields: `logger.info(…, extra={FIELDS: {…}})`."""
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Control characters except tab and line feed, and characters that change the direction or the lines of text."""


def printable(text: str) -> str:
    r"""Return the text with unsafe characters as escapes, such as `\x1b`, for a terminal or a log."""
    return _UNSAFE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    number = ord(match[0])
    return f"\\x{number:02x}" if number <= 0xFF else f"\\u{number:04x}"


class _CorrelationFilter(logging.Filter):
    """Adds to each record the execution that the logging task works on, and its tenant."""

    def filter(self, record: logging.LogRecord) -> bool:
        correlation = current_correlation()
        record.execution_id, record.tenant = correlation.execution_id, correlation.tenant
        return True


class _RedactionFilter(logging.Filter):
    """Removes the text of HTTP parser errors: it quotes what the client sent, which may contain a token."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError):
            record.msg, record.args = f"{record.getMessage()}: {type(error).__name__}", ()
            record.exc_info = None
        return True


class TextFormatter(logging.Formatter):
    """Formats a record as one line for people. The execution's id comes first unless the message names it.

    Messages can contain text of programs, packages and clients, so control characters are escaped."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        execution_id = getattr(record, "execution_id", "")
        record.message = printable(record.message).replace("\n", "\\n")
        if execution_id and execution_id not in record.message:
            record.message = f"[{execution_id}] {record.message}"
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:
        """Format a traceback. Its lines are indented: no text in it can look like a log line."""
        return indent(printable(super().formatException(ei)), "    ")


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object on one line. `replica` is this server's id, empty until it is known."""

    def __init__(self) -> None:
        super().__init__()
        self.replica = ""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if self.replica:
            line["replica"] = self.replica
        for name in ("execution_id", "tenant"):
            if value := getattr(record, name, ""):
                line[name] = value
        line |= getattr(record, FIELDS, {})
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            line |= {
                "error": f"{type(error).__name__}: {error}",
                "trace": self.formatException(record.exc_info),
            }
        return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(line, ensure_ascii=False))


class Logs:
    """Configures the logging of this process."""

    def __init__(self, log_format: str, level: str) -> None:
        self._formatter = JsonFormatter() if log_format == "json" else TextFormatter()
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(self._formatter)
        handler.addFilter(_CorrelationFilter())
        handler.addFilter(_RedactionFilter())
        logging.basicConfig(level=level, handlers=[handler])

    def set_replica(self, replica: str) -> None:
        """Add the replica's id to all JSON lines from now on."""
        if isinstance(self._formatter, JsonFormatter):
            self._formatter.replica = replica

    def log_fatal(self, error: BaseException) -> None:
        """Write the error that ends the server."""
        if isinstance(self._formatter, JsonFormatter):
            logging.getLogger("pyexec").critical("%s", error)
        else:
            print(f"python-executor-server: {printable(str(error))}", file=sys.stderr)
