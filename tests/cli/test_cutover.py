"""``meterbook cutover`` from a shell: what each step prints, its exit codes, and its JSON."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from tests.cli.commands import ON_ONE_SERVER, Program
from tests.cli.test_acts import acts_of
from tests.ledger import query
from tests.legacy_product.history import SCHEMA, Product

pytestmark = ON_ONE_SERVER


@pytest.fixture
def legacy(database_url: str) -> str:
    """One person with a plan, 18.40 on the counter, a period that runs by the real clock."""
    now = datetime.now(UTC)
    window = (now - timedelta(days=9), now + timedelta(days=20))
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute(SCHEMA.read_bytes())
    product = Product()
    product.user("u")
    product.subscription("u", "pro_6000", window)
    product.charge("u", "18.40", window[0])
    product.write(database_url)
    return database_url


def test_the_steps_from_plan_to_retire(meterbook: Program, legacy: str) -> None:
    """Each ends with 0, says what it did, does nothing twice, and stands in the log of acts unless it was undone."""
    assert "user:u" in meterbook("cutover", "plan").out
    shadow = meterbook("cutover", "shadow", "--agree-for", "0")
    assert (shadow.code, "1 entities; difference 0.00" in shadow.out) == (0, True)
    assert "1 switched" in meterbook("cutover", "switch", "--dry-run").out
    assert "1 switched" in meterbook("cutover", "switch").out
    assert "1 before" in meterbook("cutover", "switch").out
    query(legacy, "update public.user_stats set current_period_cost = current_period_cost + 1.6")
    late = meterbook("cutover", "absorb", "--once", "--json")
    assert (late.code, late.data["absorbed"]["recorded"], late.data["stopped"]) == (1, "1.60", False)
    assert meterbook("cutover", "absorb", "--once", "--quiet-for", "0").code == 0
    assert meterbook("usage", "user:u", "--json").data["total"] == "20.00"
    assert meterbook("cutover", "verify").out.splitlines()[-1] == "clean"
    assert "1 wait for their first close" in meterbook("cutover", "retire").out
    assert meterbook("cutover", "status", "--json").data["states"]["switched"] == 1
    assert meterbook("cutover", "history").code == 0
    assert "1 rolled back" in meterbook("cutover", "rollback").out
    steps = ("shadow", "switch", "switch", "absorb", "absorb", "retire", "history", "rollback")
    assert [(each.act, each.outcome) for each in acts_of(meterbook.url)] == [
        (f"cutover_{step}", "done") for step in steps
    ]


def test_a_mapping_that_does_not_fit_says_what_to_write(meterbook: Program, legacy: str, tmp_path: Path) -> None:
    """Exit code 2, each field with its fix, and nothing is written."""
    path = tmp_path / "ours.toml"
    path.write_text('[counter]\nfrom = "public.user_stats"\nuser_id = "user_id"\nrunning = "spent"\n')
    done = meterbook("cutover", "shadow", "--mapping", str(path), "--json")
    assert done.code == 2
    assert done.error["code"] == "invalid_mapping"
    assert done.error["message"].startswith(
        "counter.running: 'spent': column \"spent\" does not exist; public.user_stats has user_id,"
    )
    assert query(legacy, "select count(*) from meterbook.cutover") == [(0,)]


def test_what_is_left_out_makes_the_plan_end_with_findings(meterbook: Program, legacy: str) -> None:
    """Exit code 1, and the reason."""
    query(legacy, "update public.subscription set plan = 'gold'")
    done = meterbook("cutover", "plan")
    assert (done.code, "unknown_plan: left out until it is mended" in done.out) == (1, True)


def test_the_trigger_is_put_and_taken_away(meterbook: Program, legacy: str) -> None:
    """A dry run says what would be; the same again changes nothing; `status` says whether it stands."""
    assert "would be changed" in meterbook("cutover", "trigger", "--dry-run").out
    assert query(legacy, "select count(*) from pg_trigger where tgname like 'meterbook_counter%%'") == [(0,)]
    assert meterbook("cutover", "trigger").out.strip() == "changed: the trigger stands"
    assert meterbook("cutover", "trigger", "--json").data == {"changed": False, "stands": True}
    assert meterbook("cutover", "status", "--json").data["trigger"] is True
    assert meterbook("cutover", "trigger", "--remove").out.strip() == "changed: the trigger does not stand"


def test_shadow_ends_where_nothing_is_compared(meterbook: Program, legacy: str) -> None:
    """All are switched, or there is nobody: nothing differs, and there is nothing to wait for."""
    assert meterbook("cutover", "shadow", "--agree-for", "0").code == 0
    assert meterbook("cutover", "switch").code == 0
    assert meterbook("cutover", "shadow").code == 0
    query(legacy, "truncate public.user_stats, public.subscription, public.usage_log")
    assert meterbook("cutover", "plan").out.count("0 entities") == 1
