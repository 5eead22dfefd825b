"""What a person sees of a cutover: plans, comparisons, what each step did."""

from collections import Counter
from collections.abc import Iterable, Sequence
from decimal import Decimal
from heapq import nlargest

from rich.console import Console

from meterbook.cli.screen import amount_shown, cents_shown, table, time_shown
from meterbook.core.cutover import Compared, CutoverFinding, PlannedEntity, RolledBack, ShadowRound, SwitchedEntity
from meterbook.core.money import ZERO

ENTITIES_SHOWN_MAX = 20
WIDE = 110
"""Columns of a terminal from which on the plan shows what goes over besides usage."""


def show_plan(on: Console, planned: Sequence[PlannedEntity], findings: Sequence[CutoverFinding]) -> None:
    """The entities with the largest baselines, then what does not add up, by kind, with what is done about it."""
    columns = ["baseline", "dated", "audit log", *(("billed", "credits", "limit") if on.width >= WIDE else ())]
    rest = ("blocked",) if on.width >= WIDE else ()
    made = table(on, "entity", "plan", "period", *columns, *rest, numbers=columns, whole=["entity", "period"])
    for one in nlargest(ENTITIES_SHOWN_MAX, planned, key=lambda each: each.baseline):
        made.add_row(*_plan_cells(one)[: 3 + len(columns) + len(rest)])
    on.print(made)
    if len(planned) > ENTITIES_SHOWN_MAX:
        on.print(f"and {len(planned) - ENTITIES_SHOWN_MAX:,} more; --json has all")
    on.print(f"{len(planned):,} entities, baselines {amount_shown(sum((one.baseline for one in planned), ZERO))}")
    _show_findings(on, findings)


def _plan_cells(one: PlannedEntity) -> list[str]:
    dated = one.starts_at is not None and one.ends_at is not None
    period = f"{one.starts_at:%Y-%m-%d} … {one.ends_at:%m-%d}" if dated else "free"
    limit = "" if one.usage_limit is None else amount_shown(one.usage_limit, 2)
    figures = (one.baseline, one.dated, one.audit, one.billed, one.credits)
    return [one.entity, one.plan, period, *map(amount_shown, figures), limit, one.blocked or ""]


def _show_findings(on: Console, findings: Sequence[CutoverFinding]) -> None:
    counts = Counter((one.code, one.treatment) for one in findings)
    for (code, treatment), count in sorted(counts.items()):
        on.print(f"\n{count:,} × {code}: {treatment}")
        shown = [one for one in findings if one.code == code][:3]
        for one in shown:
            on.print(f"  {one.subject}: {one.message}", soft_wrap=True)
        if count > len(shown):
            on.print(f"  and {count - len(shown):,} more")


def show_round(on: Console, done: ShadowRound) -> None:
    since = "not all agree" if done.agreed_since is None else f"all agree since {time_shown(done.agreed_since)}"
    parts = [
        f"{done.entities:,} entities",
        f"{done.begun:,} counters begun" if done.begun else "",
        f"{done.mirrored:,} customers told" if done.mirrored else "",
        f"{done.rows:,} rows recorded",
        f"{done.rows_refused:,} rows refused" if done.rows_refused else "",
        f"{done.differing:,} differ" if done.differing else "",
        f"{done.refused:,} left out" if done.refused else "",
        f"{done.waiting:,} wait" if done.waiting else "",
        since,
    ]
    on.print(", ".join(part for part in parts if part), soft_wrap=True)


def show_compared(on: Console, compared: Iterable[Compared]) -> None:
    """Those that differ, and the sums of all."""
    found = list(compared)
    columns = ("counters", "baseline", "ledger", "difference")
    made = table(on, "entity", "state", *columns, "why", numbers=columns, whole=["entity"])
    differing = [one for one in found if one.difference and one.state == "shadow"]
    rest = [one for one in found if one not in differing]
    for one in [*differing, *nlargest(ENTITIES_SHOWN_MAX - len(differing), rest, key=lambda each: each.ledger)]:
        why = one.explanation if one.state == "shadow" else ""
        shown = "" if one.state != "shadow" else signed(one.difference)
        made.add_row(one.entity, one.state, *map(amount_shown, (one.counters, one.baseline, one.ledger)), shown, why)
    on.print(made)
    if len(found) > ENTITIES_SHOWN_MAX:
        on.print(f"and {len(found) - ENTITIES_SHOWN_MAX:,} more; --json has all")
    total = sum((abs(one.difference) for one in differing), ZERO)
    on.print(f"{len(found):,} entities; difference {signed(total)} in {len(differing):,} of those that are compared")


def signed(amount: Decimal) -> str:
    return amount_shown(amount, 2) if amount == amount.quantize(Decimal("0.01")) else f"{amount:f}"


def show_switched(on: Console, done: Sequence[SwitchedEntity]) -> None:
    columns = ("baseline", "dated", "billed", "credits")
    made = table(on, "entity", "outcome", *columns, "blocked", "why", numbers=columns, whole=["entity"])
    refused = [one for one in done if one.outcome == "refused"]
    rest = [one for one in done if one.outcome != "refused"]
    for one in [*refused, *nlargest(ENTITIES_SHOWN_MAX, rest, key=lambda each: each.baseline)]:
        cells = (
            amount_shown(one.baseline),
            amount_shown(one.dated),
            cents_shown(one.billed_cents),
            cents_shown(one.credits_cents),
        )
        made.add_row(one.entity, one.outcome, *cells, one.blocked or "", one.reason)
    on.print(made)
    counts = Counter(one.outcome for one in done)
    on.print(", ".join(f"{count:,} {outcome}" for outcome, count in sorted(counts.items())))


def show_rolled_back(on: Console, done: Sequence[RolledBack]) -> None:
    columns = ("usage", "billed", "credits")
    made = table(on, "entity", "outcome", *columns, "why", numbers=columns, whole=["entity"])
    told = [one for one in done if one.outcome == "refused" or one.usage or one.billed or one.credits or one.left]
    for one in told[: ENTITIES_SHOWN_MAX * 5]:
        made.add_row(
            one.entity, one.outcome, *map(amount_shown, (one.usage, one.billed, one.credits)), one.reason or one.left
        )
    if told:
        on.print(made)
    counts = Counter(one.outcome for one in done)
    on.print(", ".join(f"{count:,} {outcome.replace('_', ' ')}" for outcome, count in sorted(counts.items())))
