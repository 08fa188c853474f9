"""What an agent writes on standard error: one line a record, for people or, as JSON, for programs."""

import logging
import sys
import time

import msgspec

from dislocate.edge.eventlog import event_fields

LEVELS = ("debug", "info", "warning", "error")


def start_logging(level: str, *, as_json: bool) -> None:
    """Send all records from `level` on to standard error."""
    output = logging.StreamHandler(sys.stderr)
    output.setFormatter(JsonLines() if as_json else PlainLines())
    logging.basicConfig(level=level.upper(), handlers=[output], force=True)


class PlainLines(logging.Formatter):
    """'2026-11-23T15:04:05.678Z INFO member fra/a2 alive ...'; a trace follows on the same line, escaped."""

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.exc_info:
            text += " | " + self.formatException(record.exc_info)
        return f"{_at(record)} {record.levelname} {_one_line(text)}"


class JsonLines(logging.Formatter):
    """{"at", "level", "logger", "text"}, the fields of an event, and "trace" after an exception."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "at": _at(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "text": record.getMessage(),
        }
        event = getattr(record, "event", None)
        if event is not None:
            fields |= event_fields(event)
        if record.exc_info:
            fields["trace"] = self.formatException(record.exc_info)
        return msgspec.json.encode(fields).decode()


def _at(record: logging.LogRecord) -> str:
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{seconds}.{int(record.msecs):03d}Z"


def _one_line(text: str) -> str:
    """What came from outside must not forge a record."""
    return (
        text.replace("\\", "\\\\").replace("\r", "\\r").replace("\n", "\\n") if "\n" in text or "\r" in text else text
    )
