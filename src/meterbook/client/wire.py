"""Answers of the server as the ledger's own results. What lacks something raises, and is then no answer."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from meterbook.client.results import UsageFigures
from meterbook.core.admission import Admission
from meterbook.core.attribution import Attribution
from meterbook.core.entry_pages import EntryPage, EntrySummary, UsageEntry
from meterbook.core.ledgers import HoldState
from meterbook.core.period_facts import Period
from meterbook.core.recorded import Recorded, RecordedEntry

HowEnded = Literal["settled", "expired", "released"]
HOW_ENDED: tuple[HowEnded, ...] = ("settled", "expired", "released")
OUTCOMES = frozenset({"inserted", "replayed", "conflict", "refused", "nothing"})


def recorded(said: Mapping[str, Any]) -> Recorded:
    entries = tuple(_recorded_entry(each) for each in said["entries"])
    return Recorded(_whole(said["inserted"]), _whole(said["replayed"]), Decimal(said["amount"]), entries)


def _recorded_entry(said: Mapping[str, Any]) -> RecordedEntry:
    return RecordedEntry(
        said["id"], said["outcome"], said["entity"], said["period"], said["belongs_to"], Decimal(said["amount"]),
        _time(said["recorded_at"]),
    )  # fmt: skip


def batch_results(said: Mapping[str, Any], sent: int) -> list[Mapping[str, Any]]:
    """One for each entry that was sent, in its order: fewer, or others, acknowledge nothing."""
    results: list[Mapping[str, Any]] = said["results"]
    if [each["index"] for each in results] != list(range(sent)) or any(
        each["outcome"] not in OUTCOMES for each in results
    ):
        raise ValueError("not one result for each entry")
    return results


def settled(said: Mapping[str, Any]) -> tuple[HowEnded, Recorded]:
    for state in HOW_ENDED:
        if state == said["state"]:
            return state, recorded(said["recorded"])
    raise ValueError(said["state"])


def released(said: Mapping[str, Any]) -> bool:
    if not isinstance(said["released"], bool):
        raise TypeError("released is neither true nor false")
    return said["released"]


def attribution(said: Mapping[str, Any]) -> Attribution:
    return Attribution.from_token(said["token"])


def admission(said: Mapping[str, Any]) -> Admission:
    """Only `true` allows."""
    return Admission(
        said["allowed"] is True, said["code"], said["message"], said["scope"], said["entity"], _money(said["used"]),
        _money(said["held"]), _money(said["limit"]), said["retryable"], _money(said["overshoot"]),
    )  # fmt: skip


def hold(said: Mapping[str, Any]) -> HoldState:
    return HoldState(
        said["id"], said["entity"], said["actor"], said["workspace"], Decimal(said["amount"]), _time(said["granted_at"]),
        _time(said["expires_at"]), said["state"], _time_or_none(said["ended_at"]), _money(said["settled"]),
    )  # fmt: skip


def holds(said: Mapping[str, Any]) -> list[HoldState]:
    return [hold(each) for each in said["holds"]]


def period(said: Mapping[str, Any]) -> Period:
    return Period(
        said["id"], said["kind"], _time(said["starts_at"]), _time(said["ends_at"]), said["plan"], said["seats"],
        _money(said["included"]), Decimal(said["refresh_per_day"]), said["state"], said["subscription"],
    )  # fmt: skip


def periods(said: Mapping[str, Any]) -> list[Period]:
    return [period(each) for each in said["periods"]]


def usage(said: Mapping[str, Any]) -> UsageFigures:
    names = ("total", "baseline", "given_back", "refresh", "effective", "overage", "limit", "percent", "held")
    cents = ("charged_cents", "credits_cents", "billed_cents", "unbilled_cents")
    figures: dict[str, Any] = {name: Decimal(said[name]) for name in names}
    figures |= {name: _whole(said[name]) for name in cents}
    return UsageFigures(
        entity=said["entity"],
        period=period(said["period"]),
        count=_whole(said["count"]),
        included=_money(said["included"]),
        status=said["status"],
        by_actor={actor: Decimal(amount) for actor, amount in said["by_actor"].items()},
        by_source={source: Decimal(amount) for source, amount in said["by_source"].items()},
        by_description={
            (each["source"], each["description"]): Decimal(each["amount"]) for each in said["by_description"]
        },
        by_day={_whole(each["day"]): Decimal(each["amount"]) for each in said["by_day"]},
        **figures,
    )


def entries(said: Mapping[str, Any]) -> EntryPage:
    summary = said["summary"]
    return EntryPage(
        tuple(_entry(each) for each in said["entries"]),
        said["next_cursor"],
        None if summary is None else EntrySummary(_whole(summary["count"]), Decimal(summary["amount"])),
    )


def _entry(said: Mapping[str, Any]) -> UsageEntry:
    told = {name: said[name] for name in UsageEntry.__dataclass_fields__}
    times = {name: _time(said[name]) for name in ("occurred_at", "recorded_at")}
    return UsageEntry(**{**told, **times, "amount": Decimal(said["amount"])})


def _money(said: str | None) -> Decimal | None:
    return None if said is None else Decimal(said)


def _whole(said: Any) -> int:
    if not isinstance(said, int) or isinstance(said, bool):
        raise TypeError(f"{type(said).__name__} is no whole number")
    return said


def _time(said: str) -> datetime:
    return datetime.fromisoformat(said)


def _time_or_none(said: str | None) -> datetime | None:
    return None if said is None else _time(said)
