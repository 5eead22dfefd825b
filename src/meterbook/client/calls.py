"""A call that changes the ledger, complete: its keys are made, so that it may be sent as often as needed and takes effect once."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import uuid4

from meterbook.core.attribution import Attribution
from meterbook.core.entries import Usage, check_entries
from meterbook.core.event_keys import plain
from meterbook.core.money import EXACT, ZERO, parse_amount

ENTRY = "/v1/entries"
BATCH = "/v1/entries/batch"
CUMULATIVE = "/v1/cumulative"
CORRECTION = "/v1/corrections"
SETTLE = "/v1/holds/settle"
RELEASE = "/v1/holds/release"
STAMPED_PATHS = frozenset({ENTRY, BATCH, CUMULATIVE, SETTLE})
ANY_CURRENCY = "XXX"
"""What is checked here is what was said; only the server knows the ledger's currency, which is part of fingerprints alone."""

Body = dict[str, Any]


class Share(NamedTuple):
    """Money that a call stands for. `request`: of a running total, whose largest counts."""

    actor: str | None
    amount: Decimal
    request: str | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """`is_stamped`: its times are this machine's, not the caller's. `instead`: the entry to record if the server knows no such hold."""

    path: str
    body: Body | list[Body]
    said_at: datetime
    is_stamped: bool = False
    instead: Body | None = None

    @property
    def may_join(self) -> bool:
        """One entry with a key of its own: it may share a request with others, of which each is answered for itself."""
        return self.path == ENTRY and isinstance(self.body, dict) and "event_key" in self.body

    @property
    def bodies(self) -> list[Body]:
        return self.body if isinstance(self.body, list) else [self.body]

    @property
    def event_keys(self) -> tuple[str | None, ...]:
        return tuple(body.get("event_key") for body in self.bodies)

    @property
    def shares(self) -> tuple[Share, ...]:
        actor = None if self.instead is None else self.instead["actor"]
        return tuple(
            Share(body.get("actor", actor), Decimal(body.get("total") or body.get("amount") or 0), body.get("request"))
            for body in self.bodies
        )

    def stamped(self) -> "Call":
        """It happened when it was said, whenever it arrives; a time that the caller gave stays."""
        if self.path not in STAMPED_PATHS:
            return self
        at = self.said_at.isoformat()
        bodies = [{"occurred_at": at, **body} for body in self.bodies]
        instead = None if self.instead is None else {"occurred_at": at, **self.instead}
        body = bodies if isinstance(self.body, list) else bodies[0]
        return replace(self, body=body, instead=instead, is_stamped=True)

    def unstamped(self) -> "Call":
        """Without this machine's times, which are still to come by the server's clock: that one's is nearer."""
        at = self.said_at.isoformat()
        bodies = [_without_time(body, at) for body in self.bodies]
        instead = None if self.instead is None else _without_time(self.instead, at)
        body = bodies if isinstance(self.body, list) else bodies[0]
        return replace(self, body=body, instead=instead, is_stamped=False)

    def as_entry(self) -> "Call":
        """Of a hold that the server does not know: its cost, recorded as any other."""
        assert self.instead is not None  # noqa: S101  asked of such calls alone
        return replace(self, path=ENTRY, body=self.instead, instead=None)


def _without_time(body: Body, at: str) -> Body:
    return {name: value for name, value in body.items() if not (name == "occurred_at" and value == at)}


def new_key() -> str:
    return uuid4().hex


def entry_call(usage: Usage, now: datetime) -> Call:
    """Raises `InvalidUsage`: what can't be recorded is told before it is sent, and never spooled."""
    (body,) = _entry_bodies([usage])
    return Call(ENTRY, body, now)


def batch_call(entries: Sequence[Usage | Mapping[str, Any]], now: datetime) -> Call:
    """Raises `InvalidUsage`, which names every bad entry."""
    return Call(BATCH, list(_entry_bodies(entries)), now)


def _entry_bodies(entries: Sequence[Usage | Mapping[str, Any]]) -> Iterator[Body]:
    given: object = entries
    is_list = isinstance(given, Sequence) and not isinstance(given, Usage | str | bytes)
    keyed = [_keyed(entry) for entry in entries] if is_list else entries
    check_entries(keyed, ANY_CURRENCY)
    for each in keyed:
        said = each._asdict() if isinstance(each, Usage) else dict(each)
        yield _plain_body(said)


def _keyed(entry: Any) -> Any:
    """With a key made now, once, unless it has one or its identity is its key."""
    names = ("event_key", "source_reference", "execution")
    if isinstance(entry, Usage):
        return entry if any(getattr(entry, name) for name in names) else entry._replace(event_key=new_key())
    if not isinstance(entry, Mapping) or any(entry.get(name) for name in names):
        return entry
    return {**entry, "event_key": new_key()}


def _plain_body(said: Mapping[str, Any]) -> Body:
    """As the wire has it: amounts as plain digits, times with their zone, nothing that was left out."""
    return {name: _plain_value(name, value) for name, value in said.items() if value is not None}


def _plain_value(name: str, value: Any) -> Any:
    if name in ("amount", "total"):
        return plain(parse_amount(value))
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, Attribution):
        return value.token
    if name == "metadata":
        return json.loads(json.dumps(value, default=dict))
    return value


def other_call(path: str, said: Mapping[str, Any], now: datetime, instead: Body | None = None) -> Call:
    """Of arguments that were looked at."""
    return Call(path, _plain_body(said), now, instead=instead)


# ------------------------------------------------------------------------------------------------------------------- as bytes


def encode(call: Call) -> bytes:
    said: dict[str, Any] = {"path": call.path, "body": call.body, "said_at": call.said_at.isoformat()}
    if call.is_stamped:
        said["is_stamped"] = True
    if call.instead is not None:
        said["instead"] = call.instead
    return json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode()


def decode(payload: bytes) -> Call:
    """Raises `ValueError` for what `encode` did not write."""
    said = json.loads(payload)
    try:
        return Call(
            said["path"],
            said["body"],
            datetime.fromisoformat(said["said_at"]),
            said.get("is_stamped", False),
            said.get("instead"),
        )
    except (KeyError, TypeError, AttributeError) as wrong:
        raise ValueError(f"no call: {wrong}") from None


# --------------------------------------------------------------------------------------------------------------- what waits


class Waiting(NamedTuple):
    """What is remembered of a call that waits, beside the call itself."""

    size: int
    said_at: datetime
    shares: tuple[Share, ...]


def waiting(call: Call, size: int) -> Waiting:
    return Waiting(size, call.said_at, call.shares)


def exposure_by_actor(calls: Iterable[Waiting]) -> dict[str | None, Decimal]:
    """A running total counts once, with its largest; corrections with their sign."""
    sums: dict[str | None, Decimal] = {}
    largest: dict[str, Share] = {}
    for share in (share for each in calls for share in each.shares):
        if share.request is None:
            sums[share.actor] = EXACT.add(sums.get(share.actor, ZERO), share.amount)
        elif share.request not in largest or largest[share.request].amount < share.amount:
            largest[share.request] = share
    for share in largest.values():
        sums[share.actor] = EXACT.add(sums.get(share.actor, ZERO), share.amount)
    return sums
