"""Counters for Prometheus. Their names are part of the reference; none has a label that a customer chooses."""

from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from meterbook.core.upkeep import LedgerGauges

CONTENT_TYPE = CONTENT_TYPE_LATEST
BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


LEDGER = {
    "deltas_waiting": "Entries that wait to be folded.",
    "oldest_delta_s": "How long the oldest of them has waited.",
    "outbox_waiting": "What has to be told to Stripe or to an operator.",
    "oldest_outbox_s": "How long the oldest of it has waited.",
    "dead_letters": "What was given up after days of trying.",
    "closes_deferred": "Periods whose last charge can't be addressed.",
    "stripe_events_waiting": "Webhook events that failed or never came to an end.",
    "key_conflicts": "Keys that were used again for something else.",
    "acts_without_outcome": "Administrative acts that were cut off.",
}


def _of_ledger(gauges: LedgerGauges | None) -> CollectorRegistry:
    registry = CollectorRegistry()
    Gauge("meterbook_ledger_answers", "1 if the ledger answered this.", registry=registry).set(gauges is not None)
    if gauges is not None:
        for name, meaning in LEDGER.items():
            shown = name.removesuffix("_s") + ("_seconds" if name.endswith("_s") else "")
            Gauge(f"meterbook_ledger_{shown}", meaning, registry=registry).set(float(getattr(gauges, name)))
    return registry


@dataclass(slots=True)
class Metrics:
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    requests: Counter = field(init=False)
    seconds: Histogram = field(init=False)
    in_work: Gauge = field(init=False)
    entries: Counter = field(init=False)
    checks: Counter = field(init=False)
    webhooks: Counter = field(init=False)

    def __post_init__(self) -> None:
        registry = self.registry
        labels = ("method", "route", "status")
        self.requests = Counter("meterbook_http_requests", "Requests answered.", labels, registry=registry)
        self.seconds = Histogram(
            "meterbook_http_request_seconds",
            "Until the answer was sent.",
            ("route",),
            buckets=BUCKETS_S,
            registry=registry,
        )
        self.in_work = Gauge("meterbook_http_requests_in_work", "Requests in work.", registry=registry)
        self.entries = Counter("meterbook_entries", "Entries by what became of them.", ("outcome",), registry=registry)
        self.checks = Counter("meterbook_checks", "Checks and holds by their answer.", ("code",), registry=registry)
        self.webhooks = Counter(
            "meterbook_stripe_events", "Stripe's events by their state.", ("state",), registry=registry
        )

    def text(self, gauges: LedgerGauges | None) -> bytes:
        """`gauges` None: the ledger could not be asked, which is a figure too."""
        return generate_latest(self.registry) + generate_latest(_of_ledger(gauges))

    def count_recorded(self, inserted: int, replayed: int) -> None:
        if inserted:
            self.entries.labels("inserted").inc(inserted)
        if replayed:
            self.entries.labels("replayed").inc(replayed)
