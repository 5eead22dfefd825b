"""Sends spans where OTEL_EXPORTER_OTLP_ENDPOINT says, for a server: OpenTelemetry's own SDK, told by its own OTEL_… variables."""

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from meterbook.integrations.opentelemetry import instrument, uninstrument


@contextmanager
def exporting() -> Iterator[TracerProvider]:
    """Until the block ends; what has been traced by then is sent. A collector that does not answer holds nobody up."""
    provider = TracerProvider(resource=_named(Resource.create()))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    instrument(provider)
    try:
        yield provider
    finally:
        uninstrument()
        provider.shutdown()


def _named(resource: Resource) -> Resource:
    """Unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES name it."""
    if not str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
        return resource
    return resource.merge(Resource({SERVICE_NAME: "meterbook"}))
