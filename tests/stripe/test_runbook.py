"""The runbook has a line for whatever an operator may be told."""

import re
from pathlib import Path

from meterbook import errors
from meterbook.core.charges import Reason

ALERTS = re.compile(r"'alert', '(\w+)'")
MARKS = re.compile(r"'alert', '(limit_)' \|\|")
DEFERS = ("no_stripe_ids", "no_owner", "event_waits")


def runbook(root: Path) -> str:
    return (root / "docs" / "operating" / "stripe.md").read_text()


def test_every_alert_has_an_entry(root: Path) -> None:
    """Each that the ledger writes into its outbox, by its name."""
    said = "".join(file.read_text() for file in (root / "src" / "meterbook" / "postgres" / "migrations").glob("*.sql"))
    names = {name for name in ALERTS.findall(said) if name != "limit_"} | {"payment_failed", "dispute"}
    assert names >= {"close_deferred", "dead_letter", "decrease_prorated"}
    assert MARKS.search(said)
    names |= {"limit_80", "limit_100"}
    assert sorted(name for name in names if f"`{name}`" not in runbook(root)) == []


def test_every_reason_of_a_deferred_close_is_named(root: Path) -> None:
    """What it waits for, in the words that the alert has."""
    assert set(DEFERS) < set(Reason.__args__)  # type: ignore[attr-defined]
    assert [reason for reason in DEFERS if f"`{reason}`" not in runbook(root)] == []


def test_every_code_that_an_event_fails_with_has_an_entry(root: Path) -> None:
    """What `stripe events` shows as the reason begins with one of these."""
    raised = (
        errors.UnknownPrice, errors.UnknownInterval, errors.AttributionUnavailable, errors.UnknownEntity, errors.InvalidUsage,
        errors.BadEvent, errors.StripeUnavailable, errors.StripeRefused, errors.KeyConflict, errors.TransactionConflict, errors.InProgress,
    )  # fmt: skip
    assert [each.code for each in raised if f"`{each.code}`" not in runbook(root)] == []
