"""With OpenTelemetry on, what follows from a span is in its trace: through the row, each attempt, and what these enqueue."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pytest_django import Settings

import outbox
from outbox.models import OutboxMessage
from outbox.testing import drain
from tests.support import settling_tasks, tasks

pytestmark = pytest.mark.django_db

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def exporter(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    settings.OUTBOX_TRACING = True
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    # A process can set its provider only once.
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    yield exporter
    provider.shutdown()


def ended(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    """The spans by name; each name once."""
    spans = exporter.get_finished_spans()
    by_name = {span.name: span for span in spans}
    assert len(by_name) == len(spans)
    return by_name


def test_an_attempt_is_a_child_of_the_span_that_enqueued_it(
    exporter: InMemorySpanExporter,
) -> None:
    with trace.get_tracer("test").start_as_current_span("request") as request:
        message_id = outbox.enqueue(
            settling_tasks.settles_with_its_effect.s("a", "has a child").set(correlation_id="c")
        )
    drain()
    spans = ended(exporter)
    parent, child = (
        spans[f"process tests.support.{name}"]
        for name in ("settling_tasks.settles_with_its_effect", "tasks.note")
    )
    assert parent.parent is not None
    assert child.parent is not None
    assert parent.parent.span_id == request.get_span_context().span_id
    assert child.parent.span_id == parent.context.span_id
    assert {span.context.trace_id for span in spans.values()} == {request.get_span_context().trace_id}
    assert parent.kind == trace.SpanKind.CONSUMER
    assert parent.attributes is not None
    assert parent.attributes["messaging.message.id"] == str(message_id)
    assert parent.attributes["messaging.message.conversation_id"] == "c"


def test_a_failed_attempt_is_a_span_without_the_text_of_its_error(
    exporter: InMemorySpanExporter,
) -> None:
    with outbox.in_request("req-1", TRACE):
        outbox.enqueue(tasks.is_refused.s(999, "hunter2"))
    drain()
    spans = exporter.get_finished_spans()
    assert [span.attributes["outbox.attempt"] for span in spans if span.attributes] == [1, 2]
    for span in spans:
        assert f"{span.context.trace_id:032x}" == TRACE[3:35]
        assert (span.status.status_code, span.status.description) == (
            trace.StatusCode.ERROR,
            "ConnectionError",
        )
        assert "hunter2" not in span.to_json()


def test_what_comes_from_no_span_begins_a_trace_of_its_own(exporter: InMemorySpanExporter) -> None:
    outbox.enqueue(settling_tasks.parent_of_two.s("a"))
    drain()
    first, *children = sorted(exporter.get_finished_spans(), key=lambda span: span.start_time or 0)
    assert first.parent is None
    assert [span.parent and span.parent.span_id for span in children] == [first.context.span_id] * 2


def test_without_tracing_there_are_no_spans_and_no_context_is_made(
    exporter: InMemorySpanExporter, settings: Settings
) -> None:
    settings.OUTBOX_TRACING = False
    with trace.get_tracer("test").start_as_current_span("request"):
        outbox.enqueue(tasks.note.s("a"))
    drain()
    assert list(ended(exporter)) == ["request"]
    assert OutboxMessage.objects.get().headers == {}
