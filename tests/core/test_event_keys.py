"""Keys and fingerprints (§3.2): canonical, and no crafted text collides. tests/postgres/test_sql_contract.py holds SQL's against them."""

from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from meterbook.core.event_keys import of_event_key, of_fingerprint, of_identity, plain

FIELDS = st.lists(st.none() | st.text(max_size=6), min_size=9, max_size=9)
EXACT = st.decimals(min_value=0, max_value=Decimal(10**12 - 1), places=12)


@given(FIELDS, FIELDS, st.integers(0, 3), st.integers(0, 3))
def test_identities_are_equal_only_if_every_field_is(
    one: list[str | None], other: list[str | None], first: int, second: int
) -> None:
    """Fields are length-prefixed, none is unlike every text, and the ordinal counts."""
    assert (of_identity(one, first) == of_identity(other, second)) == ((one, first) == (other, second))


def test_crafted_text_does_not_run_into_its_neighbour() -> None:
    """Neither by moving a character over, nor by writing the encoding itself."""
    crafted: list[list[str | None]] = [
        ["ab", "c"],
        ["a", "bc"],
        ["abc", None],
        ["", "abc"],
        [None, "abc"],
        ["1:a,", "b"],
        ["-,", "b"],
        ["a,1:b", ""],
    ]
    assert len({of_identity(fields, 0) for fields in crafted}) == len(crafted)


def test_a_named_key_is_never_a_derived_one() -> None:
    """Each kind has a prefix of its own."""
    assert of_event_key("x") != of_identity(["x"], 0)


def test_keys_stay_what_they_are() -> None:
    """They are stored for ever: the encoding is part of the contract."""
    assert of_event_key("run_9:gpt-4o:0") == "8a15603f587ea0c3f4f766e80b6e826f"
    assert (
        of_fingerprint("u", "model", "workflow", "gpt-4o", Decimal("1.10"), "USD") == "187ad53d20464479482f3e5228bb8c59"
    )


@given(EXACT)
def test_a_fingerprint_knows_an_amount_by_value(amount: Decimal) -> None:
    """1.0 is 1.00 is 1."""
    print_of = [of_fingerprint("u", "model", "s", "m", one, "USD") for one in (amount, amount.normalize(), amount * 1)]
    assert len(set(print_of)) == 1
    assert Decimal(plain(amount)) == amount


def test_a_fingerprint_holds_each_thing_that_was_said() -> None:
    """Actor, category, source, description, amount, currency."""
    said: dict[str, Any] = {"actor": "u", "category": "model", "source": "s", "description": "m", "amount": Decimal(1)}
    others = {
        "actor": "v",
        "category": "tool",
        "source": "t",
        "description": "n",
        "amount": Decimal(2),
        "currency": "EUR",
    }
    said["currency"] = "USD"
    prints = {of_fingerprint(**(said | {name: other})) for name, other in others.items()}
    assert len(prints | {of_fingerprint(**said)}) == 7
