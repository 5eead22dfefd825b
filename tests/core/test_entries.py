"""What may be recorded (§3): a table of bad input. Every bad entry is named, by its place, its field and a stable code."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, StrEnum
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterbook.core.attribution import Attribution
from meterbook.core.entries import Entry, Usage, check_each_entry, check_entries
from meterbook.core.event_keys import plain
from meterbook.errors import InvalidUsage
from tests.ledger import problems_of

GOOD: dict[str, Any] = {"actor": "u", "source": "s", "description": "m", "amount": "1", "event_key": "k"}
TEXTS = {
    "actor": 255,
    "source": 128,
    "description": 512,
    "event_key": 512,
    "line": 255,
    "workspace": 255,
    "workflow": 255,
    "execution": 255,
    "source_reference": 255,
}


class Ruled(Usage):
    """A usage that is not one of the ordinary: every rule is applied to it, one by one."""


class Source(StrEnum):
    COPILOT = "copilot"


def checked(*said: Any) -> list[Entry]:
    return check_entries(said, "USD")


def refused(*said: Any) -> list[tuple[int, str, str]]:
    with pytest.raises(InvalidUsage) as raised:
        checked(*said)
    return problems_of(raised)


def deep(levels: int) -> dict[str, Any]:
    return {"a": deep(levels - 1)} if levels > 1 else {"a": 1}


def sized(size: int) -> dict[str, str]:
    return {"a": "x" * (size - len('{"a": ""}'))}


cyclic: dict[str, Any] = {}
cyclic["self"] = cyclic


BAD: list[tuple[str, Any, str]] = [
    *((field, "", "empty") for field in TEXTS),
    *((field, "x" * (longest + 1), "too_long") for field, longest in TEXTS.items()),
    *((field, "x" * 10_240, "too_long") for field in TEXTS),
    *((field, "a\0b", "invalid_text") for field in TEXTS),
    *((field, "a\ud800", "invalid_text") for field in TEXTS),
    *((field, 7, "invalid_text") for field in TEXTS),
    *((field, b"u", "invalid_text") for field in TEXTS),
    *((field, None, "invalid_text") for field in ("actor", "source", "description")),
    ("category", "gpu", "unknown_category"),
    ("category", None, "unknown_category"),
    ("category", [], "unknown_category"),
    ("entity", "u", "invalid_entity"),
    ("entity", "team:u", "invalid_entity"),
    ("entity", "User:u", "invalid_entity"),
    ("entity", " user:u", "invalid_entity"),
    ("entity", "user:", "invalid_entity"),
    ("entity", "organization:", "invalid_entity"),
    ("entity", "user:" + "x" * 256, "too_long"),
    ("entity", "user:\0", "invalid_text"),
    ("period", "1", "invalid_period"),
    ("period", True, "invalid_period"),
    ("period", 1.0, "invalid_period"),
    ("period", 2**63, "invalid_period"),
    ("period", -(2**70), "invalid_period"),
    ("occurred_at", "2026-06-01T00:00:00Z", "invalid_time"),
    ("occurred_at", 1_750_000_000, "invalid_time"),
    ("occurred_at", datetime(2026, 6, 1), "naive_time"),  # noqa: DTZ001  naive is the point
    ("occurred_at", datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC), "invalid_time"),
    ("occurred_at", datetime.min.replace(tzinfo=timezone(timedelta(hours=14))), "invalid_time"),
    ("metadata", [], "invalid_metadata"),
    ("metadata", "{}", "invalid_metadata"),
    ("metadata", {"a": float("nan")}, "invalid_metadata"),
    ("metadata", {"a": object()}, "invalid_metadata"),
    ("metadata", {"a": b"x"}, "invalid_metadata"),
    ("metadata", {"a": "\0"}, "invalid_metadata"),
    ("metadata", {"\0": 1}, "invalid_metadata"),
    ("metadata", {"a": "\ud800"}, "invalid_metadata"),
    ("metadata", {"\ud800": 1}, "invalid_metadata"),
    ("metadata", {("a",): 1}, "invalid_metadata"),
    ("metadata", {"a": 10**5000}, "invalid_metadata"),
    ("metadata", sized(4097), "too_large"),
    ("metadata", {"a": "é" * 2044}, "too_large"),
    ("metadata", deep(5), "too_deep"),
    ("metadata", {"a": [[[[1]]]]}, "too_deep"),
    ("metadata", cyclic, "too_deep"),
    ("attribution", "token", "invalid_attribution"),
    ("attribution", 7, "invalid_attribution"),
    ("attribution", Attribution("v", None, "user:v", 1, 1), "attribution_disagrees"),
    ("event_key", None, "no_identity"),
]


@pytest.mark.parametrize(
    ("field", "value", "code"), BAD, ids=[f"{n} {field} {code}" for n, (field, _, code) in enumerate(BAD)]
)
def test_a_bad_field_is_named(field: str, value: Any, code: str) -> None:
    """Its entry's place, the field and why, whether said as a dict or as a Usage."""
    bad = GOOD | {field: value}
    assert refused(GOOD, bad) == [(1, field, code)]
    assert refused(Usage(**bad)) == [(0, field, code)]


@pytest.mark.parametrize(
    "amount", [0.5, True, "NaN", Decimal("Infinity"), "-0.01", -1, "0.0000000000001", 10**12, None]
)
def test_a_bad_amount_is_named(amount: Any) -> None:
    """tests/core/test_money.py has the whole table."""
    assert refused(GOOD | {"amount": amount}) == [(0, "amount", "invalid_amount")]


def test_every_bad_entry_of_a_call_is_named() -> None:
    """Each with its own reason; the sound ones between them are not."""
    bad: list[Any] = [
        GOOD | {"amount": 0.5},
        GOOD,
        GOOD | {"actor": ""},
        {"actor": "u"},
        GOOD | {"colour": "red"},
        "no entry",
        None,
        Usage(**GOOD),
        GOOD | {"period": "x"},
    ]
    assert refused(*bad) == [
        (0, "amount", "invalid_amount"),
        (2, "actor", "empty"),
        (3, "source", "missing"),
        (4, "colour", "unknown_field"),
        (5, "entry", "invalid_entry"),
        (6, "entry", "invalid_entry"),
        (8, "period", "invalid_period"),
    ]


@pytest.mark.parametrize("missing", ["actor", "source", "description", "amount"])
def test_a_missing_field_is_named(missing: str) -> None:
    """Nothing that must be chosen has a default."""
    assert refused({name: value for name, value in GOOD.items() if name != missing}) == [(0, missing, "missing")]


@pytest.mark.parametrize("name", ["", "Amount", "amount ", 7, None, "__class__"])
def test_an_unknown_field_is_named(name: Any) -> None:
    """Whatever its name is: never ignored."""
    assert refused(GOOD | {name: "x"}) == [(0, str(name), "unknown_field")]


EDGES: list[dict[str, Any]] = [
    *({field: "x" * longest} for field, longest in TEXTS.items()),
    *({field: "日" * longest} for field, longest in TEXTS.items()),
    {"entity": "organization:" + "x" * 255},
    {"entity": "user:a:b"},
    {"period": 2**63 - 1},
    {"metadata": sized(4096)},
    {"metadata": {"a": "é" * 2043}},
    {"metadata": deep(4)},
    {"metadata": {"a": [[[1]]]}},
    {"metadata": {}},
    {"metadata": {"a": r"\u0000"}},
    {"metadata": MappingProxyType({"a": 1})},
    {"amount": "0.1000000000000"},
    {"amount": Decimal("1E+3")},
    {"amount": 7},
    {"occurred_at": datetime(1970, 1, 1, tzinfo=UTC)},
    {"occurred_at": datetime(2026, 6, 1, tzinfo=timezone(timedelta(hours=-9, minutes=-30)))},
    {"event_key": None, "execution": "e"},
    {"event_key": None, "source_reference": "r"},
]


@pytest.mark.parametrize("said", EDGES, ids=[f"{n} {next(iter(said))}" for n, said in enumerate(EDGES)])
def test_the_exact_edges_are_taken(said: dict[str, Any]) -> None:
    """As long, as deep, as large as is said to be allowed."""
    assert len(checked(GOOD | said)) == 1


SAID = st.one_of(
    st.sampled_from(
        ["u", "model", "gpu", "", "x" * 128, "x" * 129, "x" * 513, "é", "a\0", "\ud800", "#7", Source.COPILOT, 7]
    ),
    st.text(max_size=4),
    st.none(),
)
AMOUNTS = st.one_of(
    st.sampled_from(["0", "0.00", "1.10", "007", ".5", "1.", "1e3", "+1", "-1", "1\n", "\u0661", 5, 0.5, True, None]),
    st.decimals(allow_nan=True, allow_infinity=True),
    st.decimals(min_value=0, max_value=10**12, places=13),
    st.from_regex(r"[0-9]{1,13}(\.[0-9]{1,13})?", fullmatch=True),
)
TIMES = st.none() | st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=2)), None]))
METADATA = st.none() | st.sampled_from([{}, {"a": 1}, {"a": float("nan")}, [], "x"])
ORDINARY = st.fixed_dictionaries(
    {"actor": SAID, "source": SAID, "description": SAID, "amount": AMOUNTS},
    optional=dict.fromkeys(TEXTS.keys() - {"actor", "source", "description"} | {"category"}, SAID)
    | {"occurred_at": TIMES, "metadata": METADATA},
)
MIXED = st.lists(st.one_of(st.just(GOOD), ORDINARY, ORDINARY.map(lambda said: GOOD | said)), max_size=4)


@given(MIXED)
def test_what_is_ordinary_is_judged_like_anything_else(said: list[dict[str, Any]]) -> None:
    """The short way through the checks gives the same entries and names the same problems as the rules, which a subclass is left to."""
    short, ruled = (check_each_entry([kind(**one) for one in said], "USD") for kind in (Usage, Ruled))
    assert short == ruled
    assert [plain(one.amount) for one in short[0]] == [plain(one.amount) for one in ruled[0]]


@given(MIXED)
def test_a_dict_says_what_a_usage_says(said: list[dict[str, Any]]) -> None:
    """By either way through the checks."""
    assert check_each_entry(said, "USD") == check_each_entry([Usage(**one) for one in said], "USD")


def test_an_amount_of_zero_is_checked_and_left_out() -> None:
    """Accepted, nothing to write; its own mistakes are named all the same."""
    assert checked(GOOD | {"amount": 0}, GOOD | {"amount": "0.00"}) == []
    assert refused(GOOD | {"amount": 0, "actor": ""}) == [(0, "actor", "empty")]


def test_an_entry_keeps_its_place() -> None:
    """Also behind one of amount 0."""
    assert [entry.position for entry in checked(GOOD | {"amount": 0}, GOOD)] == [1]


class Kind(str, Enum):  # noqa: UP042  as an application may have it
    TOOL = "tool"


def test_subclasses_of_text_are_text() -> None:
    """Enumerations of an application mean their value: key and fingerprint are those of the plain text."""
    subclassed = {"source": Source.COPILOT, "category": Kind.TOOL, "event_key": None, "execution": Source.COPILOT}
    plain = {"source": "copilot", "category": "tool", "event_key": None, "execution": "copilot"}
    (one,), (other,) = checked(GOOD | subclassed), checked(GOOD | plain)
    assert (one.key, one.fingerprint) == (other.key, other.fingerprint)


def test_any_mapping_is_an_entry() -> None:
    """Not only a dict."""
    said: Mapping[str, Any] = MappingProxyType(GOOD)
    assert checked(said) == checked(GOOD)


def test_look_alike_text_is_unlike() -> None:
    """Composed and decomposed, Latin and Cyrillic: two keys."""
    keys = {checked(GOOD | {"event_key": key})[0].key for key in ("\u00e9", "e\u0301", "a", "\u0430", "a\u200b")}
    assert len(keys) == 5


def test_equal_lines_are_numbered_by_amount_zeros_included() -> None:
    """Whatever their order in the call; a named key takes no number."""
    line = {name: value for name, value in GOOD.items() if name != "event_key"} | {"execution": "e"}
    amounts = ["0", "0.10", "0.10", "0.20"]
    keys = [entry.key for entry in checked(*({**line, "amount": amount} for amount in amounts))]
    backwards = checked(GOOD, *({**line, "amount": amount} for amount in reversed(amounts)))
    assert len(set(keys)) == 3
    assert sorted(entry.key for entry in backwards[1:]) == sorted(keys)


def test_the_sound_ones_of_a_partial_call_keep_their_keys() -> None:
    """For a call that takes what is sound: the sound entries, and the problems of the others."""
    sound, problems = check_each_entry([GOOD, GOOD | {"amount": 0.5}, GOOD | {"event_key": "k2"}], "USD")
    assert [entry.position for entry in sound] == [0, 2]
    assert [problem.index for problem in problems] == [1]
