"""Hypothesis plays histories against the ledger and the model: every reply and every figure must be the same."""

import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import hypothesis
import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from meterbook import sync
from meterbook.errors import MeterbookError
from tests.conftest import Clock
from tests.stateful.model import FREE, Model, Refused, Said, month_of, next_month, summed

EXAMPLES = int(os.environ.get("METERBOOK_TEST_EXAMPLES", "20"))
STEPS = int(os.environ.get("METERBOOK_TEST_STEPS", "100"))
USERS = ["ada", "bob", "cyd"]
ORGANIZATIONS = ["acme", "umbrella"]
PAYERS = [*(f"user:{user}" for user in USERS), *(f"organization:{name}" for name in ORGANIZATIONS)]
CLOSE = """
update meterbook.billing_period set state = 'closed' where entity_id = meterbook.entity_id_of(%s) and kind = 'dated' and starts_at = %s
"""

amounts = st.sampled_from(["0.000000000001", "0.1", "1", "2.50", "17", "999999.999999"]).map(Decimal)
users, payers = st.sampled_from(USERS), st.sampled_from(PAYERS)
organizations, workspaces = st.sampled_from(ORGANIZATIONS), st.sampled_from(["w1", "w2"])
entries = st.fixed_dictionaries(
    {
        "again": st.sampled_from([None, None, None, None, None, "the same", "the same", "another amount"]),
        "which": st.integers(0, 99),
        "actor": users,
        "amount": amounts,
        "source": st.sampled_from(["workflow", "copilot"]),
        "description": st.sampled_from(["gpt-4o", "o3", "(other)"]),
        "ago": st.sampled_from([None, None, 0, 1, 24 * 4, 24 * 12, 24 * 25, 24 * 50]),
        "place": st.sampled_from([None, None, None, None, "w1", "w2", *PAYERS[::2]]),
    }
)


@pytest.fixture
def book(database_url: str, clock: Clock) -> Iterator[sync.Book]:
    with sync.open(database_url, clock=clock, connections_max=2) as opened:
        yield opened


class Histories(RuleBasedStateMachine):
    """Each history has names of its own in one database, so that they can't meet."""

    numbers = itertools.count()

    def __init__(self, book: sync.Book, clock: Clock, conn: psycopg.Connection[Any]) -> None:
        super().__init__()
        self.book, self.clock, self.conn = book, clock, conn
        self.name = f"h{next(self.numbers)}"
        self.clock.now = datetime(2026, 6, 20, 12, tzinfo=UTC)
        self.model = Model(self.clock.now)
        self.made = itertools.count()

    # ------------------------------------------------------------------------------------------------------- between the two

    def own(self, said: str) -> str:
        """A name, or an entity's name, of this history alone."""
        kind, colon, name = said.rpartition(":")
        return f"{kind}{colon}{self.name} {name}"

    def agree(self, theirs: Callable[[], object], ours: Callable[[], object]) -> None:
        """Both do it with the same result, or both refuse it for the same reason."""
        expected, refusal = attempt(ours, Refused)
        found, error = attempt(theirs, MeterbookError)
        assert (found, error) == (expected, refusal)

    def told(self, said: Said) -> dict[str, Any]:
        names = {name: None if name is None else self.own(name) for name in (said.workspace, said.entity)}
        return {
            "actor": self.own(said.actor),
            "source": said.source,
            "description": said.description,
            "amount": said.amount,
            "event_key": self.own(said.key),
            "occurred_at": said.occurred_at,
            "workspace": names[said.workspace],
            "entity": names[said.entity],
        }

    def meant(self, drawn: Mapping[str, Any]) -> Said:
        ago, place = drawn["ago"], drawn["place"]
        first = [row.said for row in self.model.rows.values() if row.said.key.startswith("key")]
        if drawn["again"] and first:
            again: Said = first[drawn["which"] % len(first)]
            amount = again.amount if drawn["again"] == "the same" else again.amount + 1
            return replace(again, amount=amount, workspace=None, entity=None)
        return Said(
            f"key {next(self.made)}",
            drawn["actor"],
            drawn["amount"],
            drawn["source"],
            drawn["description"],
            None if ago is None else self.clock.now - timedelta(hours=ago),
            place if place in self.model.workspaces else None,
            place if place in PAYERS else None,
        )

    # ----------------------------------------------------------------------------------------------------------------- rules

    @initialize()
    def begin(self) -> None:
        for name in ORGANIZATIONS:
            self.book.put_organization(self.own(name), owner=self.own(f"owner of {name}"))
        for owner in ("user:ada", "organization:acme"):
            self.subscribe(owner, "pro", "active")
        self.join("acme", "bob")

    @rule(drawn=st.lists(entries, min_size=1, max_size=12))
    def record(self, drawn: list[dict[str, Any]]) -> None:
        """Alone or in a batch, keys used again for the same or for something else."""
        said = [self.meant(each) for each in drawn]
        told = [self.told(each) for each in said]
        self.agree(lambda: self.book.record_many(told).inserted, lambda: self.model.record(said))

    @rule(drawn=st.lists(entries, min_size=1, max_size=3), kept=st.booleans())
    def record_in_a_transaction(self, drawn: list[dict[str, Any]], kept: bool) -> None:
        """Committed, or rolled back as if it had never been."""
        said = [self.meant(each) for each in drawn]
        told = [self.told(each) for each in said]
        if kept:
            self.agree(lambda: self.book.record_many(told, conn=self.conn).inserted, lambda: self.model.record(said))
            self.conn.commit()
        else:
            attempt(lambda: self.book.record_many(told, conn=self.conn), MeterbookError)
            self.conn.rollback()

    @rule(request=st.integers(0, 3), actor=users, total=st.integers(1, 9).map(Decimal))
    def record_total(self, request: int, actor: str, total: Decimal) -> None:
        said = Said(f"total {next(self.made)}", actor, total, "copilot", "stream", self.clock.now)
        self.agree(
            lambda: (
                self.book.record_cumulative(
                    self.own(actor), request=self.own(str(request)), total=total, source="copilot", description="stream"
                ).amount
            ),
            lambda: self.model.record_total(str(request), said),
        )

    @precondition(lambda self: self.model.rows)
    @rule(data=st.data(), amount=amounts, takes_back=st.booleans())
    def correct(self, data: st.DataObject, amount: Decimal, takes_back: bool) -> None:
        key = data.draw(st.sampled_from(sorted(key for key in self.model.rows if not key.startswith("total")) or [""]))
        if not key:
            return
        amount, fix = -amount if takes_back else amount, f"fix {next(self.made)}"
        (stored,) = self.conn.execute("select meterbook.event_key(%s)::text", [self.own(key)]).fetchone() or ("",)
        self.agree(
            lambda: self.book.correct(stored, amount=amount, reason="x", event_key=self.own(fix)).amount and None,
            lambda: self.model.correct(key, amount, fix),
        )
        self.conn.commit()

    @rule(
        owner=payers,
        plan=st.sampled_from(["pro", "pro_6000", "team", "team_6000"]),
        status=st.sampled_from(["active", "past_due", "unpaid"]),
    )
    def subscribe(self, owner: str, plan: str, status: str) -> None:
        month = month_of(self.clock.now)
        was_set_to_cancel = self.model.is_set_to_cancel(owner)
        said = self.model.subscribe(owner, plan, entitled=status != "unpaid")
        self.book.put_subscription(
            id=self.own(said.name),
            owner=self.own(owner),
            plan=plan,
            status=status,
            starts_at=month,
            ends_at=next_month(month),
            cancel_at_period_end=was_set_to_cancel,
        )

    @rule(organization=organizations, user=users)
    def join(self, organization: str, user: str) -> None:
        self.agree(
            lambda: self.book.add_member(self.own(organization), self.own(user)),
            lambda: self.model.join(organization, user),
        )

    @rule(organization=organizations, user=users)
    def leave(self, organization: str, user: str) -> None:
        self.agree(
            lambda: self.book.remove_member(self.own(organization), self.own(user)),
            lambda: self.model.leave(organization, user),
        )

    @rule(workspace=workspaces, payer=st.none() | payers)
    def put_workspace(self, workspace: str, payer: str | None) -> None:
        self.book.put_workspace(self.own(workspace), payer=None if payer is None else self.own(payer))
        self.model.workspaces[workspace] = payer

    @rule(hours=st.sampled_from([1, 24, 24 * 9, 24 * 20]))
    def time_passes(self, hours: int) -> None:
        self.until(self.clock.now + timedelta(hours=hours))

    @rule()
    def to_the_edge_of_the_month(self) -> None:
        """The last microsecond of one month, or the first instant of the next."""
        edge = next_month(self.clock.now)
        self.until(edge - timedelta(microseconds=1) if self.clock.now < edge - timedelta(microseconds=1) else edge)

    def until(self, now: datetime) -> None:
        self.clock.now = now
        self.model.pass_time(now)

    @rule()
    def compact(self) -> None:
        self.book.compact()

    @rule()
    def rebuild(self) -> None:
        for entity in {entity for entity, _ in self.model.periods()}:
            self.book.rebuild(self.own(entity))

    @rule(waits=st.booleans())
    def close(self, waits: bool) -> None:
        """As seals would: what is there is folded, then what has ended takes nothing more; unless nothing has, the month passes first."""
        if waits or not self.ended():
            self.until(next_month(self.clock.now) + timedelta(hours=1))
        for entity, month in self.ended():
            self.book.usage(self.own(entity))
            self.book.compact()
            self.conn.execute(CLOSE.encode(), [self.own(entity), month])
            self.conn.commit()
            self.model.closed.add((entity, month))

    @precondition(lambda self: self.model.closed)
    @rule(data=st.data(), drawn=st.lists(entries, min_size=1, max_size=3), hours=st.integers(0, 700))
    def record_late(self, data: st.DataObject, drawn: list[dict[str, Any]], hours: int) -> None:
        """For a period that is closed, by its time."""
        entity, month = data.draw(st.sampled_from(sorted(self.model.closed)))
        said = [self.meant(each) for each in drawn]
        for each in said:
            if each.key not in self.model.rows:
                each.occurred_at, each.entity, each.workspace = month + timedelta(hours=hours), entity, None
        told = [self.told(each) for each in said]
        self.agree(lambda: self.book.record_many(told).inserted, lambda: self.model.record(said))

    def ended(self) -> list[tuple[str, datetime]]:
        """Subscription periods with entries that have ended and are not closed."""
        return sorted(
            (entity, period)
            for entity, period in self.model.periods() - self.model.closed
            if period != FREE and next_month(period) <= self.clock.now
        )

    # --------------------------------------------------------------------------------------------------------------- figures

    @rule(entity=payers)
    def look(self, entity: str) -> None:
        """The running period: what it is, and its total."""
        usage = self.book.usage(self.own(entity))
        home = self.model.home(entity)
        assert usage.period.starts_at == home
        assert usage.total == sum((row.said.amount for row in self.model.rows_of(entity, home)), Decimal(0))

    def teardown(self) -> None:
        for _ in range(2):
            for entity in {entity for entity, _ in self.model.periods()}:
                self.check(entity)
            self.book.compact()

    def check(self, entity: str) -> None:
        """Every period of an entity: total, count and breakdowns, the list beside them, the proof."""
        ids = {(period.kind == "free", period.starts_at): period.id for period in self.book.periods(self.own(entity))}
        starts = {number: start for (_, start), number in ids.items()}
        for start in {period for owner, period in self.model.periods() if owner == entity}:
            rows = self.model.rows_of(entity, start)
            usage = self.book.usage(self.own(entity), ids[start == FREE, start])
            assert (usage.total, usage.count) == (sum(row.said.amount for row in rows), len(rows))
            assert nonzero(usage.by_day) == summed((row for row in rows if row.day is not None), "day")
            assert nonzero(usage.by_source) == summed(rows, "source")
            assert nonzero(usage.by_actor) == {
                self.own(str(actor)): total for actor, total in summed(rows, "actor").items()
            }
            assert usage.given_back == sum((row.said.amount for row in rows if row.day is None), Decimal(0))
            assert {key[1] for key in nonzero(usage.by_description)} <= {row.said.description for row in rows}
        page = self.book.entries(self.own(entity), limit=500)
        listed = Counter((row.amount, starts[row.period], starts.get(row.belongs_to or 0)) for row in page.entries)
        assert listed == Counter(
            (row.said.amount, row.period, row.belongs_to) for row in self.model.rows.values() if row.entity == entity
        )
        assert self.book.verify(self.own(entity)) == []


def attempt(call: Callable[[], object], refusal: type[MeterbookError | Refused]) -> tuple[object, str]:
    """The result, or the code of the refusal."""
    try:
        return call(), ""
    except refusal as refused:
        return None, refused.code


def nonzero(sums: Mapping[Any, Decimal]) -> dict[Any, Decimal]:
    return {part: amount for part, amount in sums.items() if amount}


def test_every_history_reads_as_the_model_says(book: sync.Book, database_url: str, clock: Clock, seed: int) -> None:
    """Recording with keys used again, batches, running totals, corrections, customers that change, months that pass and close, folds and
    rebuilds in any order: the book answers as a person with paper would, who pays, in which period, on which day, and is proven clean.
    """
    with psycopg.connect(database_url) as conn:

        @hypothesis.seed(seed)
        def history() -> Histories:
            return Histories(book, clock, conn)

        run_state_machine_as_test(
            history,  # type: ignore[arg-type]  # a factory will do, says its documentation
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=STEPS,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
                print_blob=True,
            ),
        )
    assert book.verify() == []
