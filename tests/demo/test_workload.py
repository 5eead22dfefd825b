"""The demo's month: the same for everybody, and made of what really happens to a ledger."""

from collections import Counter
from datetime import datetime, timedelta

from meterbook.core.entries import Usage
from meterbook.demo import cast
from meterbook.demo.workload import Correction, Flush, Retry, Run, Tampered, amount_of, steps

MONTH = steps()


def entries_of(kind: type[Run] | type[Retry]) -> list[Usage]:
    return [entry for step in MONTH if isinstance(step, kind) for entry in step.entries]


def test_the_same_seed_is_the_same_month() -> None:
    """To the last microsecond and the last decimal."""
    assert steps() == MONTH
    assert steps(seed=1) != MONTH


def test_every_intent_to_charge_has_a_key_of_its_own() -> None:
    """Only retries name a key again, and they name nothing else."""
    keys = Counter(entry.event_key for entry in entries_of(Run))
    assert set(keys.values()) == {1}
    assert {entry.event_key for entry in entries_of(Retry)} < keys.keys()


def test_the_month_has_everything_that_goes_wrong_in_a_real_one() -> None:
    """Retries, retries with another amount, streams, corrections, and reports that come days late."""
    kinds = Counter(type(step) for step in MONTH)
    runs = [step for step in MONTH if isinstance(step, Run)]
    late = [run for run in runs if run.at - _happened(run.entries[-1]) > timedelta(hours=1)]
    assert len(entries_of(Run)) > 28_000
    assert kinds[Retry] > 100
    assert kinds[Tampered] == 12
    assert kinds[Flush] == 30 * 7
    assert kinds[Correction] == 8
    assert len(late) > 20


def test_nothing_happens_before_its_cause_or_outside_the_month() -> None:
    """A retry, a tampered retry or a correction comes after its run; all of it in May 2026."""
    recorded: set[str | None] = set()
    for step in MONTH:
        assert cast.MONTH_START <= step.at < cast.MONTH_END
        if isinstance(step, Run):
            assert all(_happened(entry) <= step.at for entry in step.entries)
            recorded |= {entry.event_key for entry in step.entries}
        elif isinstance(step, Retry):
            assert {entry.event_key for entry in step.entries} <= recorded
        elif isinstance(step, Tampered):
            assert step.entry.event_key in recorded
        elif isinstance(step, Correction):
            assert step.of.event_key in recorded


def test_a_correction_never_takes_more_than_there_was() -> None:
    """Half of one entry, at most."""
    for step in MONTH:
        if isinstance(step, Correction):
            assert 0 < -step.amount <= amount_of(step.of)


def _happened(entry: Usage) -> datetime:
    assert entry.occurred_at is not None
    return entry.occurred_at
