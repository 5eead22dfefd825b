"""How the SQL reads."""

import re
from pathlib import Path

from tests.house_rules.source import PACKAGE, ROOT

# Where the database's clock may be read as it is: file → why.
OWN_CLOCK = {
    "src/meterbook/postgres/migrate.sql": "when a migration was applied; no time of the ledger",
    "src/meterbook/postgres/schema.sql": "the same default, as pg_dump writes it",
    "src/meterbook/postgres/health.sql": "the doctor compares the two clocks",
}
_PROSE = re.compile(r"--[^\n]*|/\*.*?\*/|'[^'\n]*'", re.DOTALL)
_CLOCK = re.compile(
    r"\b(now\s*\(|current_timestamp\b|current_date\b|current_time\b|localtimestamp\b|localtime\b"
    r"|transaction_timestamp\s*\(|statement_timestamp\s*\(|timeofday\s*\()",
    re.IGNORECASE,
)
_OWN_CLOCK = re.compile(r"clock_timestamp\s*\(\s*\)", re.IGNORECASE)
_ALLOWED_CLOCK = re.compile(
    r"coalesce\s*\((\s*[\w.%():]+\s*,)+\s*clock_timestamp\s*\(\s*\)|if at - clock_timestamp\(\) >", re.IGNORECASE
)


def statements(file: Path) -> str:
    """The file without its comments and texts, lines kept."""
    return _PROSE.sub(lambda match: "\n" * match[0].count("\n"), file.read_text())


def sql_files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.sql"))


def _lines(file: Path, pattern: re.Pattern[str], text: str) -> list[str]:
    return [f"{file.relative_to(ROOT)}:{text.count(chr(10), 0, hit.start()) + 1}" for hit in pattern.finditer(text)]


def test_sql_never_asks_for_the_transactions_time() -> None:
    """Functions take `at timestamptz`; now() is the transaction's beginning, which may lie an hour back."""
    assert [line for file in sql_files() for line in _lines(file, _CLOCK, statements(file))] == []


def test_the_databases_clock_is_read_only_where_the_caller_names_no_time() -> None:
    """`coalesce(at, clock_timestamp())` is the one form, so that a passed clock is obeyed everywhere; `permitted` compares the two."""
    found = []
    for file in sql_files():
        if str(file.relative_to(ROOT)) in OWN_CLOCK:
            continue
        text = _ALLOWED_CLOCK.sub(lambda match: " " * len(match[0].splitlines()[0]), statements(file))
        found += _lines(file, _OWN_CLOCK, text)
    assert found == []


def test_a_named_query_has_a_purpose() -> None:
    """`-- name: x` is followed by a line that says what for, unless one line of SQL says it itself."""
    found = []
    for file in sql_files():
        for query in file.read_text().split("-- name:")[1:]:
            name, *lines = query.strip().splitlines()
            if len(lines) > 1 and not lines[0].startswith("-- ") and f".{name.strip()}(" not in query:
                found.append(f"{file.relative_to(ROOT)}: {name}")
    assert found == []
