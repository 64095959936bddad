"""Spans of OpenTelemetry: the trace in which a message is enqueued goes on in each of its attempts. Only with `OUTBOX_TRACING`.

What is current in one process ends at the message's row; the row carries it as the header `traceparent`, which W3C defines.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from celery.exceptions import Ignore

from outbox import conf
from outbox.claims import Claimed
from outbox.errors import Defer


def traceparent() -> str:
    """The span that is current here, as W3C's traceparent; '' without one, or without tracing."""
    if not conf.tracing():
        return ""
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent", "")


@contextmanager
def attempt(task: str, claimed: Claimed) -> Iterator[None]:
    """A span around one run of a body, below the span in which its message was enqueued; a trace of its own without one.

    An exception makes it an error by the name of its class: its text may hold secrets, and the log has it masked.
    """
    if not conf.tracing():
        yield
        return
    from opentelemetry import trace
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    parent = TraceContextTextMapPropagator().extract({"traceparent": claimed.traceparent}, context=Context())
    with trace.get_tracer("outbox").start_as_current_span(
        f"process {task}",
        context=parent,
        kind=trace.SpanKind.CONSUMER,
        attributes={
            "messaging.system": "outbox",
            "messaging.operation.type": "process",
            "messaging.message.id": str(claimed.message_id),
            "messaging.message.conversation_id": claimed.correlation_id,
            "outbox.attempt": claimed.attempts + 1,
        },
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            yield
        except Exception as error:
            if not isinstance(error, (Ignore, Defer)):
                span.set_status(trace.Status(trace.StatusCode.ERROR, type(error).__name__))
            raise
