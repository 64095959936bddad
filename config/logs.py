"""What the log says: as JSON, for what collects the logs of many processes (`LOG_FORMAT=json`), and of refused requests."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

from dlq.masking import masked
from orders.events import correlation_id

#: Names under which a record has what its message says (`extra=`). Others are left out: what Celery and Django add is
#: the arguments, the request or the parameters of a statement, as they are.
FIELDS = (
    *("task", "outcome", "attempt", "again_in_s", "arguments", "error"),
    *("method", "path", "route", "status"),
    *("duration_s", "message_id", "correlation_id", "request_id", "trace_id"),
)
_OF_AN_ORDER = correlation_id("")


class Refused(logging.Filter):
    """Makes one line, a warning, of a request that Django refuses with 400: of a host, a filter or a form that it may not have.

    Django logs an error with a traceback, although nothing is wrong here, and its lines are those of Django alone.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith("django.security."):
            return True
        record.exc_info = record.exc_text = None
        record.levelno, record.levelname = logging.WARNING, logging.getLevelName(logging.WARNING)
        return logging.getLogger(record.name).isEnabledFor(logging.WARNING)


class JsonLines(logging.Formatter):
    """One JSON object a line, without secrets: time (UTC), level, logger, message, those of FIELDS that the record has, the
    order where the correlation id names one, and the traceback of an exception.
    """

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: given for name in FIELDS if (given := getattr(record, name, None)) not in (None, "")}
        if (correlated := str(line.get("correlation_id", ""))).startswith(_OF_AN_ORDER):
            line["order_id"] = correlated.removeprefix(_OF_AN_ORDER)
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        # Of the values alone: the names are ours, and to look at them would cost as much again.
        return json.dumps({name: masked(value) for name, value in line.items()}, default=str)
