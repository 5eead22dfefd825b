"""Array literals: what goes in is what PostgreSQL reads."""

from datetime import UTC, datetime

import psycopg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meterbook.postgres.arrays import plain_array, text_array, time_array

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
CRAFTED = ["", "NULL", "null", "{", "}", ",", '"', "\\", '\\"', '","', " a ", "\n", "{a,b}", "'; drop table x; --"]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.none() | TEXT | st.sampled_from(CRAFTED), max_size=8))
def test_any_text_comes_back(server: str, values: list[str | None]) -> None:
    """Quotes, backslashes, braces, commas, the word NULL, and None."""
    with psycopg.connect(server) as conn:
        assert conn.execute("select %s::text[]", [text_array(values)]).fetchone() == (values,)


def test_numbers_and_times_come_back(server: str) -> None:
    """None is NULL."""
    moment = datetime(2026, 6, 20, 12, 0, 0, 1, tzinfo=UTC)
    with psycopg.connect(server) as conn:
        row = conn.execute(
            "select %s::bigint[], %s::timestamptz[]", [plain_array([1, None, -2]), time_array([moment, None])]
        ).fetchone()
    assert row == ([1, None, -2], [moment, None])
