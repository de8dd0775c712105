"""What the server says of itself, a line each: for people, or as JSON for machines."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Final

from aiohttp.http_exceptions import HttpProcessingError

from pyexec.correlation import current_correlation

FIELDS: Final = "fields"
"""The attribute of a record with fields of its own: `logger.info(…, extra={FIELDS: {…}})`."""


class _Correlating(logging.Filter):
    """Notes on each record which execution it is about, in the task that logs it."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.execution_id = current_correlation().execution_id
        return True


class _Discreet(logging.Filter):
    """What is no HTTP is quoted by its errors, and may hold a token: only its kind is told."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError):
            record.msg, record.args = f"{record.getMessage()}: {type(error).__name__}", ()
            record.exc_info = None
        return True


class TextFormatter(logging.Formatter):
    """For people. The execution stands before the message that does not name it itself."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        execution_id = getattr(record, "execution_id", "")
        if execution_id and execution_id not in record.message:
            record.message = f"[{execution_id}] {record.message}"
        return super().formatMessage(record)


class JsonFormatter(logging.Formatter):
    """One JSON object a line. `replica` is this server's id, from when it has one."""

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
        if execution_id := getattr(record, "execution_id", ""):
            line["execution_id"] = execution_id
        line |= getattr(record, FIELDS, {})
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            line |= {
                "error": f"{type(error).__name__}: {error}",
                "trace": self.formatException(record.exc_info),
            }
        return json.dumps(line, ensure_ascii=False)


class Logs:
    """How this process logs, on standard error."""

    def __init__(self, log_format: str, level: str) -> None:
        self._formatter = JsonFormatter() if log_format == "json" else TextFormatter()
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(self._formatter)
        handler.addFilter(_Correlating())
        handler.addFilter(_Discreet())
        logging.basicConfig(level=level, handlers=[handler])

    def name(self, replica: str) -> None:
        """From here on lines that are JSON say which replica it is."""
        if isinstance(self._formatter, JsonFormatter):
            self._formatter.replica = replica

    def fail(self, error: BaseException) -> None:
        """The last line of a server that cannot go on."""
        if isinstance(self._formatter, JsonFormatter):
            logging.getLogger("pyexec").critical("%s", error)
        else:
            print(f"python-executor-server: {error}", file=sys.stderr)
