"""OpenTelemetry, with `TRACING=1` and the packages of requirements-tracing.txt: spans of HTTP requests, of attempts of tasks
(`outbox.tracing`), and of the calls to the gateway, the warehouse and the CRM.

They are sent by OTLP over HTTP. Where to, under which name and how many of them, its SDK reads from its own variables:
OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER, …
"""

from __future__ import annotations

from celery import signals
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.django import DjangoInstrumentor
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor


def start() -> None:
    """Begin to record, once in a process; those that it forks go on."""
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    # Behind the probes, which are no part of any trace.
    DjangoInstrumentor().instrument(middleware_position=1)
    RequestsInstrumentor().instrument()
    # A process of a worker's pool ends without the interpreter's exit handlers, and what waits in it is the last batch.
    signals.worker_process_shutdown.connect(lambda **_: provider.shutdown(), weak=False)
