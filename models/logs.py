"""Logs of the API and the workers, on standard error: one line of JSON a record, or plain text on a terminal.

Records of structlog and of the standard library have the same form. Secrets are masked, values from requests are
escaped and truncated, and repeats of one kind of record are limited (models.log_limits).
"""

import logging
import re
import sys

import structlog
from structlog.typing import EventDict, WrappedLogger

from models.log_limits import RepeatLimit, bound_values

QUIET = ("alembic", "celery.app.trace", "celery.worker.strategy")
"""Loggers of libraries that duplicate our own log lines for every message."""

BRIEF = ("celery.worker.consumer", "kombu")
"""Loggers of libraries that report broker errors, which they retry themselves."""

_CREDENTIALS = re.compile(r"(?<=://)[^/\s@]*@")


def _mask_credentials(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Broker and database URLs carry passwords, and libraries put URLs into their messages."""
    return {key: _CREDENTIALS.sub("***@", value) if isinstance(value, str) else value for key, value in event.items()}


def _one_line(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Name the error in place of a traceback through a library's own code; leave out uvicorn's copy for terminals."""
    event.pop("color_message", None)
    if event.get("logger", "").startswith(BRIEF):
        if isinstance(failure := event.pop("exc_info", None), tuple) and failure[1] is not None:
            event["error"] = f"{type(failure[1]).__name__}: {failure[1]}"
        event["event"] = " ".join(str(event["event"]).split())
    return event


def configure_logs(level: int = logging.INFO) -> None:
    """Send structlog's and the standard library's records through one chain."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    terminal = sys.stderr.isatty()
    last: list[structlog.typing.Processor] = [
        structlog.processors.format_exc_info,
        _mask_credentials,
        bound_values,
        structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer(),
    ]
    structlog.configure(
        processors=[
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(RepeatLimit())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _one_line, *last],
        )
    )
    logging.captureWarnings(True)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
