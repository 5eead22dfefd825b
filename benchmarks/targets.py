"""What was promised, and whether it holds: each target is a ratio or a bound of medians."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks.measuring import Figure, number

Medians = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Target:
    """`measured` raises KeyError where a figure is missing, because its group was not run."""

    says: str
    bound: float
    at_least: bool
    measured: Callable[[Medians], float]
    unit: str = "×"

    def verdict(self, figures: list[Figure]) -> "Verdict | None":
        medians = {figure.name: figure.median for figure in figures}
        try:
            value = self.measured(medians)
        except KeyError:
            return None
        return Verdict(self, value, value >= self.bound if self.at_least else value <= self.bound)


@dataclass(frozen=True, slots=True)
class Verdict:
    target: Target
    value: float
    met: bool

    @property
    def shown(self) -> str:
        return f"{number(self.value)} {self.target.unit}"

    @property
    def wanted(self) -> str:
        return f"{'≥' if self.target.at_least else '≤'} {number(self.target.bound)} {self.target.unit}"


def _ratio(numerator: str, denominator: str) -> Callable[[Medians], float]:
    return lambda medians: medians[numerator] / medians[denominator]


def _value(name: str) -> Callable[[Medians], float]:
    return lambda medians: medians[name]


def _slowest(group: str, quantity: str) -> Callable[[Medians], float]:
    """Of all figures of a group: the largest."""

    def measured(medians: Medians) -> float:
        found = [value for name, value in medians.items() if name.startswith(group) and name.endswith(quantity)]
        if not found:
            raise KeyError(group)
        return max(found)

    return measured


TARGETS = (
    Target("64 callers, one hot entity: coalesced ÷ origin's insert", 4, at_least=True,
           measured=_ratio("writing/64/hot/meterbook", "writing/64/hot/origin")),
    Target("64 callers, one hot entity: coalesced ÷ counter row", 20, at_least=True,
           measured=_ratio("writing/64/hot/meterbook", "writing/64/hot/counter row")),
    Target("64 callers: one hot entity ÷ 1 000 entities", 0.9, at_least=True,
           measured=_ratio("writing/64/hot/meterbook", "writing/64/1000 entities/meterbook")),
    Target("bulk: record_bulk ÷ plain binary COPY of ready rows", 0.5, at_least=True,
           measured=_ratio("bulk/meterbook record_bulk", "bulk/COPY")),
    Target("one event in the caller's transaction, async: p50 ÷ origin's", 1.4, at_least=False,
           measured=_ratio("latency/async/meterbook/p50", "latency/async/origin/p50")),
    Target("one event in the caller's transaction, sync: p50 ÷ origin's", 1.4, at_least=False,
           measured=_ratio("latency/sync/meterbook/p50", "latency/sync/origin/p50")),
    Target("usage at 10⁶ entries: p99 ÷ p99 at 10³", 1.5, at_least=False,
           measured=_ratio("reading/1000000/meterbook/p99", "reading/1000/meterbook/p99")),
    Target("usage at 10⁶ entries: origin's SUM ÷ usage, p50", 150, at_least=True,
           measured=_ratio("reading/1000000/origin/p50", "reading/1000000/meterbook/p50")),
    Target("2 000 Zipf entities, batches: fold ÷ ingest", 1.2, at_least=True,
           measured=_ratio("compaction/batches/fold", "compaction/batches/ingest")),
    Target("2 000 Zipf entities, 64 callers: fold ÷ ingest", 1.2, at_least=True,
           measured=_ratio("compaction/callers/fold", "compaction/callers/ingest")),
    Target("a check at 10⁵ entries ÷ SELECT 1 on the same connection, p50", 4, at_least=False,
           measured=_ratio("deciding/check at 100000 entries/p50", "deciding/select 1/p50")),
    Target("a check at 10⁵ entries ÷ at 10³, p50", 1.5, at_least=False,
           measured=_ratio("deciding/check at 100000 entries/p50", "deciding/check at 1000 entries/p50")),
    Target("closes of periods with a charge", 200, at_least=True, unit="periods/s",
           measured=_value("deciding/closes at 1 entries")),
    Target("closes at 200 entries a period ÷ at 1", 0.8, at_least=True,
           measured=_ratio("deciding/closes at 200 entries", "deciding/closes at 1 entries")),
    Target("sweep, 20 entities moved of 2 000 ÷ of 200", 1.5, at_least=False,
           measured=_ratio("deciding/sweep, 20 of 2000 moved", "deciding/sweep, 20 of 200 moved")),
    Target("16 callers hold on one entity", 5_000, at_least=True, unit="holds/s", measured=_value("holding/16/meterbook")),
    Target("64 callers hold on one entity", 15_000, at_least=True, unit="holds/s", measured=_value("holding/64/meterbook")),
    Target("64 callers hold on one entity: coalesced ÷ conditional update", 5, at_least=True,
           measured=_ratio("holding/64/meterbook", "holding/64/conditional update")),
    Target("overshoots in a soak of holds with open and aborted settles", 0, at_least=False, unit="",
           measured=_value("holding/soak/overshoots")),
    Target("usage_delta under full ingest, at most", 50, at_least=False, unit="MB",
           measured=_value("soak/free/usage_delta at most")),
    Target("recorder under overload: memory at the end ÷ after a third", 1.25, at_least=False,
           measured=_ratio("overload/memory at the end", "overload/memory after a third")),
    Target("over HTTP: 64 connections, one entry a request", 3_000, at_least=True, unit="events/s",
           measured=_value("serving/64 single posts")),
    Target("over HTTP: arrays of 1 000", 25_000, at_least=True, unit="events/s", measured=_value("serving/arrays of 1000")),
    Target("over HTTP: NDJSON of 1 000", 25_000, at_least=True, unit="events/s", measured=_value("serving/NDJSON of 1000")),
    Target("an idle server's memory", 200, at_least=False, unit="MB", measured=_value("serving/idle memory of the server")),
    Target("slowest page of the console at 5 × 10⁶ entries, p50", 200, at_least=False, unit="ms",
           measured=_slowest("console/", " at 5000000/p50")),
)  # fmt: skip
