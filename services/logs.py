"""Structured logs: JSON lines for machines, text on a terminal; no credentials in either."""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
import traceback
from typing import Any, NamedTuple, TextIO

import structlog

from services.errors import words_of
from services.printable import printable, printable_lines, well_formed
from services.repeats import RepeatsHandler, hide_own_event
from stream.redact import redact_url

# aiohttp quotes the line that it could not read: a header may be a cookie's, and a URL have a token in it.
_QUOTED = re.compile(r"""\n|:\s+b?['"]""")
_JSON_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


class LogSettings(NamedTuple):
    """How a command logs."""

    style: str = "text"  # or auto, json
    level: str = "warning"
    repeats: bool = True  # False: of a service, which may run for a year, a repeated line is only counted


# Both redact the rendered line, which holds all there is to see: nested values, tracebacks, foreign messages.


def redact_text(_logger: Any, _method: str, line: str) -> str:
    """A line of text without credentials."""
    return redact_url(line)


def redact_json(_logger: Any, _method: str, line: str) -> str:
    """A line of JSON without credentials. Each string by itself, so that it stays JSON."""
    return _JSON_STRING.sub(lambda string: json.dumps(well_formed(redact_url(json.loads(string[0])))), line)


def escape_text(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """The event with its texts on one line each; the renderer writes other values as Python does."""
    return {
        printable(name): printable(value) if isinstance(value, str) else value
        for name, value in event.items()
    }


def write_traceback(output: TextIO, error: structlog.typing.ExcInfo) -> None:
    """A plain traceback: others break lines, also in the middle of a URL."""
    output.write("\n" + printable_lines("".join(traceback.format_exception(*error)).rstrip("\n")))


def to_json(event: Any, **options: Any) -> str:
    """JSON, which has no word for numbers that are not finite: they become texts."""
    try:
        return json.dumps(event, allow_nan=False, **options)
    except ValueError:
        return json.dumps(json.loads(json.dumps(event, **options), parse_constant=str))


class MalformedRequests(logging.Filter):
    """Makes what aiohttp says of a request that is not HTTP a line at level debug, without a traceback.

    Whoever reaches the port could otherwise fill the logs with errors.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        # Loaded already, by what wrote the record; commands without a server start sooner for it.
        from aiohttp.http import HttpProcessingError

        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError):
            record.levelno, record.levelname = logging.DEBUG, "DEBUG"
            record.msg, record.args = f"malformed request: {_QUOTED.split(error.message, 1)[0]!r:.200}", ()
            record.exc_info = record.exc_text = None
        return logging.getLogger(record.name).isEnabledFor(record.levelno)


_MALFORMED_REQUESTS = MalformedRequests()


def log_fatal(error: BaseException, exit_code: int, *, defect: bool) -> None:
    """One line that says what ended the process, with the traceback of a defect of ours."""
    structlog.get_logger("splitcast").critical(
        "ended by an error",
        reason=words_of(error),
        error=type(error).__name__,
        exit_code=int(exit_code),
        **({"exc_info": error} if defect else {}),
    )


def log_failed_thread(failed: threading.ExceptHookArgs) -> None:
    """As `threading.excepthook`: a line of the log in place of a traceback on standard error."""
    structlog.get_logger("splitcast").error(
        "thread failed",
        thread=failed.thread.name if failed.thread else None,
        exc_info=failed.exc_value,
    )


def log_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    """As `sys.unraisablehook`: what a finalizer or callback raised, of which Python can only tell."""
    structlog.get_logger("splitcast").error(
        "error ignored",
        reason=unraisable.err_msg or "nobody could be told",
        where=repr(unraisable.object),
        exc_info=unraisable.exc_value or True,
    )


def as_text(style: str) -> bool:
    """Whether logs of this style are text here: `auto` is text for a person at a terminal."""
    return style == "text" or (style == "auto" and sys.stderr.isatty())


def configure_logs(settings: LogSettings) -> None:
    """Send all logs of the process to standard error."""
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    final: list[Any] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta, hide_own_event]
    if as_text(settings.style):
        renderer = structlog.dev.ConsoleRenderer(exception_formatter=write_traceback)
        final += [escape_text, renderer, redact_text]
    else:
        json_renderer = structlog.processors.JSONRenderer(serializer=to_json)
        final += [structlog.processors.format_exc_info, json_renderer, redact_json]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=final))
    if not settings.repeats:
        handler = RepeatsHandler(handler)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.level.upper())
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    logging.getLogger("aiohttp.server").addFilter(_MALFORMED_REQUESTS)
    logging.captureWarnings(True)
