"""What is logged, where to and in what form: Django's `LOGGING`."""

import sys
from typing import Any

#: The packages of this repository.
APPLICATION = (
    *("common", "config", "dlq", "idempotency", "lab", "monitoring", "notifications", "orders", "outbox"),
    *("payments", "resilience", "webhooks"),
)
FORMATTERS: dict[str, dict[str, str]] = {
    "human": {"()": "dlq.masking.Formatter", "fmt": "%(asctime)s %(levelname)s %(name)s: %(message)s"},
    "json": {"()": "config.logs.JsonLines"},
}
FORMS = tuple(FORMATTERS)


def logging_settings(*, level: str, form: str) -> dict[str, Any]:
    """`level`: of this repository's packages and of all that has none of its own; `form`: one of FORMS."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": FORMATTERS,
        "filters": {"refused": {"()": "config.logs.Refused"}},
        "handlers": {
            "console": {
                "class": "logging.StreamHandler",
                "filters": ["refused"],
                "formatter": form,
                "stream": sys.stderr,
            }
        },
        "loggers": {
            # In a worker and in beat Celery gives the root its --loglevel, WARNING by default, and all that has none of
            # its own.
            **{name: {"level": level} for name in APPLICATION},
            # Else Django's own handlers stay: one writes these lines a second time with DEBUG=1, neither masked nor JSON.
            "django": {"level": "INFO"},
            # Else Celery gives it a handler whose lines are neither masked nor JSON.
            "celery.task": {"handlers": ["console"], "propagate": False},
            # The same of gunicorn's workers, which quote requests that they cannot read, and of the pool's processes.
            "gunicorn.error": {"handlers": ["console"], "propagate": False, "level": "INFO"},
            "multiprocessing": {"handlers": ["console"], "propagate": False},
            # What these say below is in our own line of the attempt (outbox.report) or request (common.request_id).
            "celery.app.trace": {"level": "WARNING"},
            "django.request": {"level": "ERROR"},
        },
        "root": {"handlers": ["console"], "level": level},
    }
