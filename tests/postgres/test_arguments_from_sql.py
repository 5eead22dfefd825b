"""The SQL function defends itself: whoever calls it from another language gets an error, and nothing is written."""

import psycopg
import pytest

from tests.ledger import amounts, count, query

ONE = {
    "keys": "array[gen_random_uuid()]",
    "fingerprints": "array[gen_random_uuid()]",
    "actors": "array['ada']",
    "sources": "array['workflow']",
    "descriptions": "array['gpt-4o']",
    "amounts": "array[0.5]",
}


EMPTY = {
    "keys": "'{}'::uuid[]",
    "fingerprints": "'{}'::uuid[]",
    "actors": "'{}'::text[]",
    "sources": "'{}'::text[]",
    "descriptions": "'{}'::text[]",
    "amounts": "'{}'::numeric[]",
}


def call(database_url: str, **other: str) -> list[tuple[object, ...]]:
    arguments = ", ".join(f"{name} => {value}" for name, value in (ONE | other).items())
    return query(database_url, f"select outcome from meterbook.record_usage({arguments})")


@pytest.mark.parametrize(
    "other",
    [
        {"actors": "array['ada', 'ada']", "sources": "array['w', 'w']"},
        {"keys": "array[gen_random_uuid(), gen_random_uuid()]"},
        {"occurred_ats": "array[now(), now()]"},
        {"keys": "array[[gen_random_uuid()], [gen_random_uuid()]]"},
        {"actors": "array[['ada']]"},
        {"keys": "array[[gen_random_uuid()]]"},
        {"amounts": "array[[0.5]]", "sources": "array[['workflow']]"},
        {"payer_periods": "array[[1]]::bigint[]"},
    ],
)
def test_arrays_of_different_lengths_are_refused(database_url: str, other: dict[str, str]) -> None:
    """§3.1: no entry is dropped, none is filled up with nulls."""
    query(database_url, "select meterbook.attribute(array['ada'])")
    with pytest.raises(psycopg.DatabaseError, match="differ in length"):
        call(database_url, **other)
    assert count(database_url) == count(database_url, "event_key") == 0


@pytest.mark.parametrize(
    "other",
    [
        {"keys": "array[null]::uuid[]"},
        {"fingerprints": "array[null]::uuid[]"},
        {"amounts": "array[null]::numeric[]"},
        {"amounts": "array['NaN'::numeric]"},
        {"amounts": "array['Infinity'::numeric]"},
        {"amounts": "array[-1.0]"},
        {"amounts": "array[0.0]"},
        {"amounts": "array[0.0000000000001]"},
        {"amounts": "array[1000000000000]::numeric[]"},
        {"occurred_ats": "array['-infinity'::timestamptz]"},
        {"sources": "array[null]::text[]"},
        {"categories": "array['gift']"},
    ],
)
def test_what_is_no_usage_is_refused_by_the_table(database_url: str, other: dict[str, str]) -> None:
    """§2: NaN, infinite, negative, absent or too fine: an integrity error, and nothing is written."""
    query(database_url, "select meterbook.attribute(array['ada'])")
    with pytest.raises(psycopg.IntegrityError):
        call(database_url, **other)
    assert count(database_url) == count(database_url, "event_key") == count(database_url, "usage_delta") == 0


def test_no_arrays_record_nothing(database_url: str) -> None:
    """An empty call is answered by no row."""
    assert call(database_url, **EMPTY) == []


def test_nobody_without_a_name_is_made_known(database_url: str) -> None:
    """attribute makes no surrogate of null, of an empty name, or of how one that was erased is shown."""
    query(database_url, "select meterbook.attribute(array[null, '', '#7', 'ada'], array['user:#8'])")
    assert query(database_url, "select external_id from meterbook.actor") == [("ada",)]


@pytest.mark.parametrize(("request_id", "total"), [("null", "0.5"), ("''", "0.5"), ("'req_7'", "null")])
def test_a_running_total_of_no_request_or_no_amount_is_refused(database_url: str, request_id: str, total: str) -> None:
    """§3.6: two callers who forgot it must not share one running total."""
    query(database_url, "select meterbook.attribute(array['ada'])")
    with pytest.raises(psycopg.DatabaseError, match="needs the request"):
        query(database_url, f"select meterbook.record_cumulative({request_id}, 'ada', {total}, 'workflow', 'gpt-4o')")
    assert count(database_url) == count(database_url, "cumulative_request") == 0


@pytest.mark.parametrize("total", ["-5", "-0.1", "0.0000000000001", "'-Infinity'"])
def test_a_running_total_is_money_also_where_it_does_not_rise(database_url: str, total: str) -> None:
    """§2: negative or too fine is refused, not `unchanged`: whoever sends it has a mistake to find."""
    query(database_url, "select meterbook.attribute(array['ada'])")
    for _ in range(2):
        with pytest.raises(psycopg.DatabaseError, match="is no running total"):
            query(database_url, f"select meterbook.record_cumulative('req', 'ada', {total}, 'workflow', 'gpt-4o')")
        query(database_url, "select meterbook.record_cumulative('req', 'ada', 5, 'workflow', 'gpt-4o')")
    assert amounts(database_url) == [5]


@pytest.mark.parametrize(("amount", "reason"), [("0", "'x'"), ("null", "'x'"), ("-1", "null"), ("-1", "''")])
def test_a_correction_of_nothing_or_for_no_reason_is_refused(database_url: str, amount: str, reason: str) -> None:
    """§3.7: from SQL as from Python; nothing is written, not even a key."""
    query(database_url, "select meterbook.attribute(array['ada'])")
    call(database_url, keys="array[meterbook.event_key('k')]", amounts="array[5]")
    with pytest.raises(psycopg.DatabaseError, match="other than 0, and a reason"):
        query(
            database_url,
            f"select meterbook.correct_entry(meterbook.event_key('k'), {amount}, {reason}, gen_random_uuid())",
        )
    assert count(database_url) == count(database_url, "event_key") == 1


@pytest.mark.parametrize(
    ("metadata", "constraint"),
    [
        ("jsonb_build_object('a', repeat('x', 4096))", "entry_metadata_has_a_size"),
        ("""'{"a": {"b": {"c": {"d": {}}}}}'::jsonb""", "entry_metadata_has_a_depth"),
        ("""'{"a": [[[[]]]]}'::jsonb""", "entry_metadata_has_a_depth"),
        ("'[1]'::jsonb", "entry_metadata_is_an_object"),
        ("""'"x"'::jsonb""", "entry_metadata_is_an_object"),
    ],
)
def test_metadata_is_a_small_object(database_url: str, metadata: str, constraint: str) -> None:
    """4 kB, 4 levels, as from Python: whoever writes it, and nothing of the call is written."""
    query(database_url, "select meterbook.attribute(array['ada'])")
    with pytest.raises(psycopg.errors.CheckViolation) as refused:
        call(database_url, metadatas=f"array[{metadata}]")
    assert refused.value.diag.constraint_name == constraint
    assert count(database_url) == count(database_url, "entry_metadata") == 0
    assert call(database_url, metadatas="""array['{"a": {"b": {"c": {"d": 1}}}}'::jsonb]""") == [("inserted",)]


@pytest.mark.parametrize("key", ["''", "repeat('k', 513)"])
def test_an_event_key_that_is_none_makes_no_key(database_url: str, key: str) -> None:
    """Empty: everybody's forgotten key would be one. Longer than any other surface takes it: it could be said by SQL alone."""
    with pytest.raises(psycopg.DatabaseError, match="1 to 512 characters"):
        query(database_url, f"select meterbook.event_key({key})")


@pytest.mark.parametrize(
    ("other", "outcome"),
    [
        ({"actors": "array['']"}, "invalid_actor"),
        ({"actors": "array[null]::text[]"}, "invalid_actor"),
        ({"entities": "array['']"}, "unknown_entity"),
        ({"entities": "array['team:x']"}, "unknown_entity"),
        ({"entities": "array['user:']"}, "unknown_entity"),
        ({"actors": "array['#99999']"}, "invalid_actor"),
        ({"entities": "array['user:#99999']"}, "unknown_entity"),
        ({"entities": "array['user:new']"}, "unattributed"),
    ],
)
def test_what_no_attribution_mends_is_not_called_unattributed(
    database_url: str, other: dict[str, str], outcome: str
) -> None:
    """A caller that attributes and tries again would go on for ever."""
    query(database_url, "select meterbook.attribute(array['ada'])")
    assert call(database_url, **other) == [(outcome,)]
    assert count(database_url) == 0


@pytest.mark.parametrize("at", ["infinity", "-infinity"])
def test_a_moment_is_finite(database_url: str, at: str) -> None:
    """Also the owner's, who is believed about the future: what is recorded then would be in no month."""
    query(database_url, "select meterbook.attribute(array['ada'])")
    with pytest.raises(psycopg.DatabaseError, match="is no moment"):
        call(database_url, at=f"'{at}'")
    assert count(database_url) == 0
