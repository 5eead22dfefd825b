"""Whatever a caller passes to any call of a Book, one argument at a time: an answer, or one of our errors; never another's."""

import inspect
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest

from meterbook import Book, Usage
from meterbook.book.stripe import StripeCalls
from meterbook.errors import MeterbookError
from tests.ledger import P1, use

NAIVE = P1[0].replace(tzinfo=None)
NONSENSE: list[Any] = [
    None, "", " ", "x", "user:", "\0", "\ud800", "ä" * 5000, 0, -1, 7, 2**31, 2**63, 2**70, True, 1.5, float("nan"), Decimal("NaN"),
    Decimal(-1), b"x", object(), [], [None], ["x"], {}, {"a": 1}, {1, 2}, NAIVE, P1[0], Usage("u", "s", "d", "1"), len,
]  # fmt: skip
GOOD: dict[str, dict[str, Any]] = {
    "record": {"actor": "u", "source": "s", "description": "d", "amount": "1", "event_key": "k"},
    "record_many": {"entries": [{"actor": "u", "source": "s", "description": "d", "amount": "1", "event_key": "k"}]},
    "record_bulk": {"entries": [{"actor": "u", "source": "s", "description": "d", "amount": "1", "event_key": "k"}]},
    "record_each": {"entries": [{"actor": "u", "source": "s", "description": "d", "amount": "1", "event_key": "k"}]},
    "record_cumulative": {"actor": "u", "request": "r", "total": "1", "source": "s", "description": "d"},
    "correct": {"entry": "f0395cf6-927c-2460-b778-48692551fa95", "amount": "-1", "reason": "why", "event_key": "fix"},
    "resolve": {"actor": "u"},
    "usage": {"entity": "user:u"},
    "entries": {"entity": "user:u"},
    "periods": {"entity": "user:u"},
    "explain": {"entity": "user:u"},
    "put_subscription": {
        "id": "s",
        "owner": "user:u",
        "plan": "pro",
        "status": "active",
        "starts_at": P1[0],
        "ends_at": P1[1],
    },
    "put_organization": {"organization": "o", "owner": "u"},
    "add_member": {"organization": "o", "user": "u"},
    "remove_member": {"organization": "o", "user": "u"},
    "transfer_ownership": {"organization": "o", "user": "u"},
    "put_workspace": {"workspace": "w"},
    "verify": {},
    "unprovable": {},
    "rebuild": {"entity": "user:u"},
    "check": {"actor": "u"},
    "explain_check": {"actor": "u"},
    "set_limit": {"entity": "user:u", "amount": "50"},
    "set_member_cap": {"organization": "o", "user": "u", "cap": "1"},
    "member_caps": {"organization": "o"},
    "block": {"entity": "user:u", "reason": "dispute"},
    "unblock": {"entity": "user:u", "reason": "dispute"},
    "set_baseline": {"entity": "user:u", "amount": "1"},
    "grant_credit": {"entity": "user:u", "amount": "1", "grant_id": "g"},
    "credits": {"entity": "user:u"},
    "bill_threshold": {"entity": "user:u"},
    "charges": {"entity": "user:u"},
    "close": {"entity": "user:u"},
    "outbox": {},
    "place_hold": {"actor": "u", "amount": "0.01", "hold_id": "h"},
    "settle": {"hold_id": "h", "amount": "1", "source": "s", "description": "d"},
    "release": {"hold_id": "h"},
    "holds": {"entity": "user:u"},
    "make_key": {"name": "app", "scopes": ["read"], "by": "olga"},
    "replace_key": {"key_id": 1, "by": "olga"},
    "revoke_key": {"key_id": 1},
    "know_key": {"text": f"mb_{'0' * 12}_{'0' * 64}"},
    "acts": {},
    "living_key": {"prefix": "0" * 12},
    "overview": {},
    "all_periods": {},
    "all_charges": {},
    "find_entities": {"text": "u"},
    "knows": {"entity": "user:u"},
    "delete_user": {"user": "nobody"},
    "delete_organization": {"organization": "nobody"},
}
NOT_AN_ARGUMENT = {"self", "conn"}
WITHOUT_ARGUMENTS = {
    "doctor",
    "compact",
    "fold",
    "ensure_partitions",
    "vacuum",
    "drain",
    "sweep",
    "keys",
    "gauges",
    "answers",
    "troubles",
}


def calls() -> Mapping[str, inspect.Signature]:
    """Every public call of a Book but those that speak with Stripe, and `hold`, which is `place_hold` and `release`."""
    return {
        name: inspect.signature(call)
        for name, call in inspect.getmembers(Book, inspect.iscoroutinefunction)
        if not name.startswith("_") and not hasattr(StripeCalls, name)
    }


def test_every_call_is_tried() -> None:
    """A new one is added to the table."""
    assert set(calls()) == set(GOOD) | WITHOUT_ARGUMENTS


@pytest.mark.parametrize("name", GOOD)
async def test_nonsense_is_refused_by_an_error_of_ours(book: Book, name: str) -> None:
    """TypeError, AttributeError and psycopg's own stay inside: the caller gets a sentence that says what is wrong."""
    await use(book, "u", "1")
    call, wrong = getattr(book, name), []
    for parameter in sorted(calls()[name].parameters.keys() - NOT_AN_ARGUMENT):
        for value in NONSENSE:
            try:
                await call(**(GOOD[name] | {parameter: value}))
            except MeterbookError as error:
                if "PostgreSQL refused" in str(error) or error.retryable:
                    wrong.append(f"{parameter}={value!a:.30}: {error!r:.100}")
            except Exception as error:  # noqa: BLE001  that is what is looked for
                wrong.append(f"{parameter}={value!a:.30}: {error!r:.100}")
    assert wrong == []
