"""Structured logs: JSON lines for machines, text on a terminal; no credentials in either."""

from __future__ import annotations

import json
import logging
import re
import sys
from typing import Any

import structlog

from stream.redact import redact_url

_JSON_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


# Both redact the rendered line, which holds all there is to see: nested values, tracebacks, foreign messages.


def redact_text(_logger: Any, _method: str, line: str) -> str:
    """A line of text without credentials."""
    return redact_url(line)


def redact_json(_logger: Any, _method: str, line: str) -> str:
    """A line of JSON without credentials. Each string by itself, so that it stays JSON."""
    return _JSON_STRING.sub(lambda string: json.dumps(redact_url(json.loads(string[0]))), line)


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
            record.msg, record.args = f"malformed request: {error.message!r:.200}", ()
            record.exc_info = record.exc_text = None
        return logging.getLogger(record.name).isEnabledFor(record.levelno)


_MALFORMED_REQUESTS = MalformedRequests()


def configure_logs(style: str, level: str) -> None:
    """Send all logs of the process to standard error. `style` is auto, text or json."""
    as_text = style == "text" or (style == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    final: list[Any] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.format_exc_info,
    ]
    if as_text:
        # Plain tracebacks: others break lines, also in the middle of a URL.
        plain = structlog.dev.plain_traceback
        final += [structlog.dev.ConsoleRenderer(exception_formatter=plain), redact_text]
    else:
        final += [structlog.processors.JSONRenderer(), redact_json]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=final))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    logging.getLogger("aiohttp.server").addFilter(_MALFORMED_REQUESTS)
    logging.captureWarnings(True)
