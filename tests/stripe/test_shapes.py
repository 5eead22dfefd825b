"""Whatever shape an object has, translating it gives effects or one of our errors; nothing else gets out."""

import copy
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meterbook import MeterbookError
from meterbook.stripe.effects import Effect
from meterbook.stripe.events import KINDS, effects_of, read_event
from tests.ledger import P1, P2
from tests.stripe.hooks import Subscription, Thing, event, invoice, priced

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = Path(os.environ.get("METERBOOK_DATA", ROOT.parent / "shared" / "data")) / "stripe_fixtures3.json"
CATALOG = priced()
WEIRD: list[Any] = [None, [], {}, "", "x" * 300, "\0", "é", -1, 0, 1.5, True, 10**30, [[]], {"id": 1}, {"data": [1]}]


def translated(said: Thing) -> tuple[Effect, ...] | None:
    """None: one of our errors."""
    try:
        return effects_of(read_event(json.dumps(said)), CATALOG)
    except MeterbookError:
        return None


@pytest.mark.skipif(not EXAMPLES.exists(), reason="Stripe's example objects are not here")
def test_stripes_examples_are_translated_or_refused() -> None:
    """Every example object under every kind that is listened to."""
    examples = json.loads(EXAMPLES.read_text())["resources"]
    done = [translated(event(kind, example, P1[0])) for kind in KINDS for example in examples.values()]
    assert len(done) > 500
    assert any(done)


def paths(thing: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    if isinstance(thing, dict):
        for key in thing:
            yield from paths(thing[key], (*path, key))
    elif isinstance(thing, list):
        for index, each in enumerate(thing):
            yield from paths(each, (*path, index))


def bent(said: Thing, path: tuple[Any, ...], value: object) -> Thing:
    made: Any = copy.deepcopy(said)
    at = made
    for part in path[:-1]:
        at = at[part]
    at[path[-1]] = value
    return made  # type: ignore[no-any-return]


def whole_events() -> Iterator[Thing]:
    sub = Subscription("sub_u", "user:u")
    yield sub.event("updated", P2[0], window=P2, seats=2)
    contract = {"plan": "enterprise", "seats": "2", "monthlyPrice": "10", "referenceId": "acme", "userId": "u"}
    yield Subscription("sub_e", metadata=contract).event("created", P1[0])
    metadata = {
        "type": "credit_purchase",
        "amount": "10",
        "billing_entity": "user:u",
        "meterbook_charge": "c",
        "meterbook_subscription": "s",
    }
    for kind in ("invoice.finalized", "invoice.paid", "invoice.payment_failed", "invoice.voided"):
        yield event(kind, invoice("in_1", sub, "paid" if kind == "invoice.paid" else "open", metadata=metadata), P1[0])
    dispute = {"id": "dp_1", "charge": {"id": "ch_1", "customer": "cus_1"}, "status": "won"}
    yield event("charge.dispute.created", dispute, P1[0])
    yield event("charge.dispute.closed", dispute, P1[0])


@pytest.mark.parametrize("said", list(whole_events()), ids=lambda said: said["type"])
def test_each_field_may_be_anything(said: Thing) -> None:
    """Each field of an event in turn becomes each of these: effects, or an error of ours."""
    assert translated(said)
    done = [translated(bent(said, path, value)) for path in paths(said) for value in WEIRD]
    assert any(each is None for each in done)
    assert any(each is not None for each in done)
