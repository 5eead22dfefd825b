"""The mapping file of a cutover says where each mistake is and what to write instead."""

import pytest

from meterbook.core.legacy_mapping import parse_mapping, type_problem
from meterbook.errors import InvalidMapping
from meterbook.mappings import load_mapping

COUNTER = '[counter]\nfrom = "public.user_stats"\nuser_id = "user_id"\nrunning = "current_period_cost"\n'


def problems_of(text: str) -> list[str]:
    with pytest.raises(InvalidMapping) as refused:
        parse_mapping(text)
    return list(refused.value.problems)


def test_the_shipped_example_maps_all_five_tables_of_the_origin() -> None:
    """Counters, audit log, subscriptions, organizations and members of the origin's shape."""
    mapping = load_mapping()
    assert set(mapping.relations) == {"counter", "audit", "subscription", "organization", "member"}
    assert mapping.relations["counter"].expressions["running"] == "current_period_cost"


def test_only_the_counter_is_required() -> None:
    """A product without audit log, organizations or subscriptions has counters all the same."""
    assert parse_mapping(COUNTER).has("counter", "running")
    assert not parse_mapping(COUNTER).has("audit")


def test_every_mistake_is_named_at_once_with_its_place() -> None:
    """A field that there is not, one that is missing, a number where an expression belongs, a table that there is not."""
    said = problems_of('[counter]\nuser_id = 7\ncost = "x"\n[ledger]\nfrom = "y"\n')
    assert [problem.split(":")[0] for problem in said] == [
        "[ledger]", "counter.from", "counter.user_id", "counter.cost", "counter.running",
    ]  # fmt: skip
    assert any('running = "running"' in problem for problem in said)


def test_a_mapping_without_counters_is_refused() -> None:
    """There is nothing to switch from."""
    assert problems_of("") == ["[counter] is missing: say which table has it"]


def test_the_digest_knows_the_contents_and_not_the_order() -> None:
    """The same mapping in another order is the same; another expression is another."""
    turned = '[counter]\nrunning = "current_period_cost"\nuser_id = "user_id"\nfrom = "public.user_stats"\n'
    assert parse_mapping(COUNTER).digest == parse_mapping(turned).digest
    assert parse_mapping(COUNTER).digest != parse_mapping(COUNTER.replace("current_", "last_")).digest


@pytest.mark.parametrize(
    ("relation", "field", "expression", "found", "wanted"),
    [
        ("audit", "occurred_at", "created_at", "timestamp", "(created_at) at time zone 'UTC'"),
        ("counter", "running", "cost", "float8", "(cost)::numeric"),
        ("counter", "user_id", "id", "uuid", "(id)::text"),
        ("subscription", "cancel_at_period_end", "cancels", "text", "(cancels)::boolean"),
    ],
)
def test_a_type_that_does_not_fit_comes_with_what_to_write(
    relation: str, field: str, expression: str, found: str, wanted: str
) -> None:
    """The error names field, expression, type, and the expression that would do."""
    problem = type_problem(relation, field, expression, found)
    assert problem is not None
    assert problem.startswith(f"{relation}.{field}: {expression!r} is {found}")
    assert wanted in problem
