"""The log as JSON, for what collects the logs of many processes: `LOG_FORMAT=json`."""

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
