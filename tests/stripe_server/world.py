"""What Stripe knows: its objects in their own shapes, its clocks, and an event for each change.

Pure: no network, no threads, no time of day. Each customer lives by the world's clock, or by the test clock it was made with.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.stripe_server.cards import Card
from tests.stripe_server.refusals import Refused, missing
from tests.stripe_server.version import API_VERSION

Thing = dict[str, Any]
"""One of Stripe's objects, as JSON has it."""

DAY_S = 86_400
HOUR_S = 3_600
NOUNS = {"payment_method": "PaymentMethod", "payment_intent": "payment_intent", "test_helpers.test_clock": "test clock"}


def copied(json: Any) -> Any:
    """All the way down; several times as fast as deepcopy, because it is only ever JSON."""
    if isinstance(json, dict):
        return {name: copied(value) for name, value in json.items()}
    return [copied(value) for value in json] if isinstance(json, list) else json


@dataclass
class World:
    """`name` is part of every id, so that objects of two worlds never share one."""

    now: int
    name: str
    retries_s: tuple[int, ...] = (3 * DAY_S, 5 * DAY_S, 7 * DAY_S)
    """When a payment that failed is tried again by itself, each time counted from the attempt before."""
    after_retries: Literal["cancel", "unpaid", "past_due"] = "cancel"
    """What becomes of a subscription when the last of them failed too: a setting of the account."""
    search_lag_s: int = 60
    """What was created shorter ago is not found by search; lists and retrievals know it at once."""
    things: dict[str, Thing] = field(default_factory=dict)
    cards: dict[str, Card] = field(default_factory=dict)
    """How the bank behind a payment method answers."""
    next_card: Card | None = None
    """Answers the next attempt in place of the card itself."""
    told: set[str] = field(default_factory=set)
    request: dict[str, str | None] = field(default_factory=lambda: {"id": None, "idempotency_key": None})
    unsent: list[Thing] = field(default_factory=list)
    """Events that nobody has been told yet."""
    _count: int = 0

    def new_id(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}_{self.name}{self._count:010d}"

    def add(self, thing: Thing) -> Thing:
        self.things[thing["id"]] = thing
        return thing

    def of(self, kind: str) -> Iterator[Thing]:
        """In the order of their making."""
        return (thing for thing in list(self.things.values()) if thing["object"] == kind and not thing.get("deleted"))

    def find(self, kind: str, thing_id: str | None) -> Thing | None:
        thing = self.things.get(thing_id or "")
        return thing if thing is not None and thing["object"] == kind else None

    def get(self, kind: str, thing_id: str) -> Thing:
        """What the path of a request names; 404 without it."""
        thing = self.find(kind, thing_id)
        if thing is None or (thing.get("deleted") and kind != "customer"):
            raise missing(NOUNS.get(kind, kind), thing_id)
        return thing

    def named(self, kind: str, thing_id: str, param: str) -> Thing:
        """What a parameter names; 400 without it."""
        thing = self.find(kind, thing_id)
        if thing is None or thing.get("deleted"):
            noun = NOUNS.get(kind, kind)
            raise Refused(
                400, "invalid_request_error", f"No such {noun}: '{thing_id}'", code="resource_missing", param=param
            )
        return thing

    def clock_of(self, thing: Thing) -> str | None:
        """The test clock that an object lives by."""
        if thing["object"] == "test_helpers.test_clock":
            return str(thing["id"])
        if "test_clock" in thing:
            return str(thing["test_clock"]) if thing["test_clock"] else None
        customer = self.find("customer", thing.get("customer"))
        return self.clock_of(customer) if customer else None

    def time_of(self, thing: Thing) -> int:
        return self.time(self.clock_of(thing))

    def time(self, clock: str | None) -> int:
        return int(self.things[clock]["frozen_time"]) if clock else self.now

    def set_time(self, clock: str | None, at: int) -> None:
        if clock:
            self.things[clock]["frozen_time"] = at
        else:
            self.now = at

    def change(self, thing: Thing, kind: str, /, **new: Any) -> Thing:
        """Sets fields and tells by an event of this kind; an `….updated` that updates nothing is not told."""
        before = {name: thing.get(name) for name in new if thing.get(name) != new[name]}
        thing.update(new)
        if before or not kind.endswith(".updated"):
            self.emit(kind, thing, before if kind.endswith(".updated") else None)
        return thing

    def emit(self, kind: str, thing: Thing, previous: Thing | None = None) -> Thing:
        event: Thing = {
            "id": self.new_id("evt"),
            "object": "event",
            "account": None,
            "api_version": API_VERSION,
            "context": None,
            "created": self.time_of(thing),
            "data": {
                "object": copied(thing),
                **({} if previous is None else {"previous_attributes": copied(previous)}),
            },
            "livemode": False,
            "pending_webhooks": 1,
            "request": dict(self.request),
            "type": kind,
        }
        self.unsent.append(event)
        return self.add(event)

    def events(self, *kinds: str) -> list[Thing]:
        """Told or untold, oldest first."""
        return [event for event in self.of("event") if not kinds or event["type"] in kinds]
