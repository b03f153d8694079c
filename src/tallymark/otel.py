"""OpenTelemetry for a tally: metrics and spans of its traffic with Redis (extra ``otel``).

Requires only opentelemetry-api; the SDK that the program configures exports the data.
Names follow OpenTelemetry's semantic conventions for databases
(https://opentelemetry.io/docs/specs/semconv/database/) where these have a name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import MissingExtraError

try:
    from opentelemetry import metrics, trace
except ImportError as error:
    raise MissingExtraError(
        "tallymark.otel needs opentelemetry-api, which is not installed; "
        'run: pip install "tallymark[otel]"'
    ) from error

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from ._core.observers import Operation

__all__ = ["OpenTelemetry"]

#: The value of ``db.operation.name`` by kind: marks are one transaction.
_COMMANDS = {"write": "MULTI", "read": "PIPELINE"}


class OpenTelemetry:
    """An observer for the option ``observer`` of a tally: ``observer=OpenTelemetry()``.

    One instance may observe several tallies, whether `Tally` or `SyncTally`, in all threads.

    Metrics:
        ``db.client.operation.duration``: a histogram in seconds, one value for
            each batch of marks and each request of a read.
        ``tallymark.marks``: how many marks were sent in batches that succeeded.
        ``tallymark.bytes_sent``: how many bytes were written to Redis.

    The attributes of metrics are ``db.system.name``, ``db.operation.name`` (``MULTI`` for
    marks, ``PIPELINE`` for reads), ``tallymark.store`` (without a password) and,
    after a failure, ``error.type``.

    Spans: one for each batch and each request, of kind *client*, with the same attributes
    and ``db.operation.batch.size``. Marks of several tasks share a batch; its span
    is a child of the current span of the task that sent the batch.
    """

    def __init__(
        self,
        meter_provider: MeterProvider | None = None,
        tracer_provider: TracerProvider | None = None,
        *,
        spans: bool = True,
    ) -> None:
        """Create the instruments.

        Arguments:
            meter_provider, tracer_provider: the providers of metrics and spans; the
                program's global ones by default.
            spans: whether to record spans.
        """
        meter = metrics.get_meter("tallymark", meter_provider=meter_provider)
        self._durations = meter.create_histogram(
            "db.client.operation.duration", "s", "How long exchanges with Redis take."
        )
        self._marks = meter.create_counter("tallymark.marks", "{mark}", "Marks sent to Redis.")
        self._bytes = meter.create_counter("tallymark.bytes_sent", "By", "Bytes sent to Redis.")
        self._tracer = trace.get_tracer("tallymark", tracer_provider=tracer_provider)
        self._spans = spans

    def __call__(self, operation: Operation, /) -> None:
        """Record the metrics and the span of an ``operation``."""
        command = _COMMANDS[operation.kind]
        attributes: dict[str, str] = {
            "db.system.name": "redis",
            "db.operation.name": command,
            "tallymark.store": operation.store,
        }
        if operation.error is not None:
            attributes["error.type"] = type(operation.error).__name__
        self._durations.record(operation.seconds, attributes)
        self._bytes.add(operation.bytes_sent, attributes)
        if operation.kind == "write" and operation.error is None:
            self._marks.add(operation.size, attributes)
        if self._spans:
            self._record_span(operation, command, attributes)

    def _record_span(self, operation: Operation, command: str, attributes: dict[str, str]) -> None:
        ended = int(operation.ended * 1e9)
        span = self._tracer.start_span(
            f"{command} tallymark",
            kind=trace.SpanKind.CLIENT,
            start_time=ended - int(operation.seconds * 1e9),
            attributes={**attributes, "db.operation.batch.size": operation.size},
        )
        if operation.error is not None:
            span.set_status(trace.StatusCode.ERROR, str(operation.error))
        span.end(ended)
