"""``meterbook cutover``: from counters that everybody updates to the ledger, step by step, while everybody goes on writing."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from meterbook.book import Book
from meterbook.book.cutover import Cutover
from meterbook.cli.acting import noted
from meterbook.cli.command import Session, command
from meterbook.cli.cutover_screen import show_compared, show_plan, show_rolled_back, show_round, show_switched
from meterbook.cli.exits import Exit
from meterbook.cli.opening import open_book
from meterbook.cli.screen import amount_shown, cents_shown, console, time_shown
from meterbook.core.cutover import ShadowRound
from meterbook.mappings import load_mapping
from meterbook.plain import json_text

T = TypeVar("T")
app = typer.Typer(
    name="cutover",
    help="From counters to the ledger: plan, shadow, switch, absorb, verify, retire; rollback from any step before that.",
    no_args_is_help=True,
)
Mapping = Annotated[
    Path | None,
    typer.Option(
        "--mapping", help="Where your counters are, TOML; without one, the origin's shape.", show_default=False
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Do it, say what came of it, and undo it.")]
Entity = Annotated[
    str | None, typer.Option(help="user:ID or organization:ID; all, if none is named.", show_default=False)
]


@asynccontextmanager
async def _opened(
    session: Session, mapping: Path | None, feed: Literal["audit", "application"] = "audit"
) -> AsyncIterator[tuple[Book, Cutover]]:
    said = load_mapping(mapping)
    async with open_book(session) as book, book.cutover(said, feed=feed) as cutover:
        yield book, cutover


@asynccontextmanager
async def _noted(book: Book, step: str, subject: str | None, *, dry_run: bool, **said: object) -> AsyncIterator[None]:
    """A step is an act; one that is undone is none."""
    if dry_run:
        yield
        return
    async with noted(book, f"cutover_{step}", subject or "all", **said):
        yield


def _bar(session: Session, text: TextColumn | None = None) -> Progress:
    """Its total is not known before it has been read once, and it is read once."""
    return Progress(
        SpinnerColumn(),
        text or TextColumn("{task.description}  {task.completed:,}"),
        TimeElapsedColumn(),
        console=console(sys.stderr),
        disable=session.json or not sys.stderr.isatty(),
        transient=True,
    )


async def _all(session: Session, name: str, found: AsyncIterator[T]) -> list[T]:
    with _bar(session) as bar:
        task = bar.add_task(name, total=None)
        done = []
        async for one in found:
            done.append(one)
            bar.advance(task)
    return done


async def _waited(session: Session, name: str, work: Awaitable[T]) -> T:
    with _bar(session, TextColumn("{task.description}")) as bar:
        bar.add_task(name, total=None)
        return await work


@command(app, "plan")
async def plan(session: Session, mapping: Mapping = None) -> Exit:
    """Reads only: entities, periods, baselines, counters against audit rows, what does not add up and what is done about it.

    Exit code 1 if something has to be left out until it is mended.
    """
    async with _opened(session, mapping) as (_, cutover):
        planned = await _all(session, "entities", cutover.plan())
        findings = cutover.findings
    if session.json:
        print(json_text({"entities": planned, "findings": findings}))
    else:
        show_plan(console(), planned, findings)
    return Exit.FINDINGS if any(one.refused for one in findings) else Exit.DONE


@command(app, "shadow")
async def shadow(
    session: Session,
    mapping: Mapping = None,
    *,
    feed: Annotated[
        str, typer.Option(help="Who records usage meanwhile: audit (this, from the log), or application.")
    ] = "audit",
    agree_for: Annotated[float, typer.Option(help="Seconds for which every entity has to agree.", min=0)] = 60,
    every: Annotated[float, typer.Option(help="Seconds between rounds.", min=0.1)] = 2,
    rounds: Annotated[int | None, typer.Option(help="At most so many rounds.", min=1, show_default=False)] = None,
    dry_run: DryRun = False,
) -> Exit:
    """Feed the ledger beside the counters and compare the two, until every entity agrees for a while. Nothing is billed here meanwhile.

    Exit code 1 if it ended before they did.
    """
    if feed not in ("audit", "application"):
        raise typer.BadParameter(f"{feed!r} is not audit or application", param_hint="--feed")
    chosen: Literal["audit", "application"] = "application" if feed == "application" else "audit"
    async with (
        _opened(session, mapping, chosen) as (book, cutover),
        _noted(book, "shadow", None, dry_run=dry_run, feed=chosen),
    ):
        done = await _waited(session, "round 1", cutover.shadow(dry_run=dry_run))
        number = 1
        _tell_round(session, done)
        while not dry_run and not _has_agreed(done, agree_for) and (rounds is None or number < rounds):
            await asyncio.sleep(every)
            number += 1
            done = await _waited(session, f"round {number}", cutover.shadow())
            _tell_round(session, done)
        refusals = await cutover.refusals()
        compared = [one async for one in cutover.compare(states=("shadow",))]
    if session.json:
        print(json_text({"round": done, "refused": refusals, "compared": compared}))
    else:
        show_compared(console(), compared)
        for one in refusals:
            console().print(f"left out: {one.subject}: {one.reason}", soft_wrap=True)
    return Exit.DONE if dry_run or _has_agreed(done, agree_for) else Exit.FINDINGS


def _tell_round(session: Session, done: ShadowRound) -> None:
    if not session.json:
        show_round(console(), done)


def _has_agreed(done: ShadowRound, seconds: float) -> bool:
    """Where nothing is compared, nothing differs: no users, or all are switched."""
    if not done.entities:
        return True
    return done.agreed_since is not None and datetime.now(UTC) - done.agreed_since >= timedelta(seconds=seconds)


@command(app, "switch")
async def switch(
    session: Session,
    mapping: Mapping = None,
    *,
    entity: Entity = None,
    despite_differences: Annotated[
        bool,
        typer.Option(
            "--despite-differences", help="What the two differ by becomes baseline: the counter is what is owed."
        ),
    ] = False,
    dry_run: DryRun = False,
) -> Exit:
    """From here on the ledger counts: each counter becomes the running period's baseline; bills, credits, limits, blocks go over.

    Exit code 1 if some were refused; the same command tries those again.
    """
    said = {"despite_differences": despite_differences or None}
    async with _opened(session, mapping) as (book, cutover), _noted(book, "switch", entity, dry_run=dry_run, **said):
        found = cutover.switch(entity, despite_differences=despite_differences, dry_run=dry_run)
        done = await _all(session, "entities", found)
    _tell(session, {"switched": done}, show_switched, done)
    return Exit.FINDINGS if any(one.outcome == "refused" for one in done) else Exit.DONE


@command(app, "absorb")
async def absorb(
    session: Session,
    mapping: Mapping = None,
    *,
    quiet_for: Annotated[float, typer.Option(help="Seconds without an old instance after which to end.", min=0)] = 900,
    every: Annotated[float, typer.Option(help="Seconds between looks.", min=0.1)] = 2,
    once: Annotated[
        bool, typer.Option("--once", help="One look; exit code 1 if old instances still wrote lately.")
    ] = False,
    dry_run: DryRun = False,
) -> Exit:
    """Record what old instances still add to the counters, once each, until they have stopped. Run it until the rollout ends."""
    async with _opened(session, mapping) as (book, cutover), _noted(book, "absorb", None, dry_run=dry_run):
        while True:
            done = await _waited(session, "counters", cutover.absorb(dry_run=dry_run))
            late = await cutover.lateness(int(quiet_for))
            stopped = not late.moving and not done.waiting
            if session.json:
                print(json_text({"absorbed": done, "lateness": late, "stopped": stopped}))
            else:
                last = "never" if late.last_moved_at is None else time_shown(late.last_moved_at)
                amounts = f"{amount_shown(done.recorded)} recorded as late, {amount_shown(late.absorbed)} in all"
                said = f"{done.counters:,} counters moved, {amounts}; {late.moving:,} moved lately, the last at {last}"
                console().print(said, soft_wrap=True)
                if done.billed_cents or done.granted_cents:
                    bills = (
                        f"{cents_shown(done.billed_cents)} billed, {cents_shown(done.granted_cents)} of credit granted"
                    )
                    console().print(f"  by old instances: {bills}")
                for note in done.notes:
                    console().print(f"  {note}", soft_wrap=True)
            if stopped or once or dry_run:
                return Exit.DONE if stopped else Exit.FINDINGS
            await asyncio.sleep(every)


@command(app, "trigger")
async def trigger(
    session: Session,
    mapping: Mapping = None,
    *,
    remove: Annotated[
        bool, typer.Option("--remove", help="Take it away again, when old instances have stopped.")
    ] = False,
    dry_run: DryRun = False,
) -> Exit:
    """Have a trigger on your counters' table note each fall, so that a reset between two looks of `absorb` hides nothing."""
    act = "remove_trigger" if remove else "put_trigger"
    async with _opened(session, mapping) as (book, cutover), _noted(book, act, None, dry_run=dry_run):
        changed = await cutover.put_trigger(stands=not remove, dry_run=dry_run)
        stands = await cutover.has_trigger()
    if session.json:
        print(json_text({"changed": changed, "stands": stands}))
    else:
        said = "would be changed" if dry_run and changed else "changed" if changed else "as it was"
        console().print(f"{said}: the trigger {'stands' if stands else 'does not stand'}")
    return Exit.DONE


@command(app, "verify")
async def verify(session: Session, mapping: Mapping = None, entity: Entity = None) -> Exit:
    """Check what a cutover promises, to the last digit: baselines and days, late usage, rows in the ledger, then the ledger itself."""
    async with _opened(session, mapping) as (book, cutover):
        compared = [one async for one in cutover.compare(entity)]
        unsound = await _waited(session, "cutover", cutover.verify())
        differences = await _waited(session, "ledger", book.verify())
    if session.json:
        print(json_text({"compared": compared, "unsound": unsound, "differences": differences}))
    else:
        show_compared(console(), compared)
        for one in unsound:
            console().print(f"{one.entity}: {one.claim}: {one.found} is not {one.expected}", soft_wrap=True)
        console().print("clean" if not unsound and not differences else f"{len(unsound) + len(differences)} findings")
    return Exit.FINDINGS if unsound or differences else Exit.DONE


@command(app, "retire")
async def retire(session: Session, mapping: Mapping = None, *, dry_run: DryRun = False) -> Exit:
    """Say which entities' first period has been closed here: their counters decide nothing any more, and can't come back."""
    async with _opened(session, mapping) as (book, cutover), _noted(book, "retire", None, dry_run=dry_run):
        retired = await _waited(session, "entities", cutover.retire(dry_run=dry_run))
        states = await cutover.states()
    if session.json:
        print(json_text({"retired": retired, "states": states}))
    else:
        console().print(
            f"{retired:,} retired now, {states.retired:,} in all; {states.switched:,} wait for their first close"
        )
    return Exit.DONE


@command(app, "rollback")
async def rollback(
    session: Session, mapping: Mapping = None, *, entity: Entity = None, dry_run: DryRun = False
) -> Exit:
    """Back to the counters: what was used, billed and spent here since the switch is added to their rows. Until the first close."""
    async with _opened(session, mapping) as (book, cutover), _noted(book, "rollback", entity, dry_run=dry_run):
        done = await _all(session, "entities", cutover.roll_back(entity, dry_run=dry_run))
    _tell(session, {"rolled_back": done}, show_rolled_back, done)
    return Exit.FINDINGS if any(one.outcome == "refused" for one in done) else Exit.DONE


@command(app, "history")
async def history(session: Session, mapping: Mapping = None, *, dry_run: DryRun = False) -> Exit:
    """Import audit rows of past periods, sealed at once: readable, in no limit and no bill. Again: only what is new."""
    async with _opened(session, mapping) as (book, cutover), _noted(book, "history", None, dry_run=dry_run):
        done = await _waited(session, "rows", cutover.import_history(dry_run=dry_run))
    if session.json:
        print(json_text(done))
    else:
        said = f"{done.rows:,} rows of {amount_shown(done.amount)} in {done.periods:,} past periods"
        console().print(f"{said}; {done.refused:,} could not be recorded")
    return Exit.FINDINGS if done.refused else Exit.DONE


@command(app, "status")
async def status(session: Session, mapping: Mapping = None) -> Exit:
    """How far the entities are, which are left out and why, whether old instances still write."""
    async with _opened(session, mapping) as (_, cutover):
        states, refusals, late = await cutover.states(), await cutover.refusals(), await cutover.lateness()
        has_trigger = await cutover.has_trigger()
    if session.json:
        print(json_text({"states": states, "refused": refusals, "lateness": late, "trigger": has_trigger}))
    else:
        on = console()
        on.print(
            f"{states.shadow:,} in shadow, {states.switched:,} switched, {states.retired:,} retired, {states.rolled_back:,} rolled back"
        )
        for one in refusals:
            on.print(f"left out: {one.subject}: {one.reason}", soft_wrap=True)
        on.print(
            f"late usage of old instances: {amount_shown(late.absorbed)}; {late.moving:,} counters moved in the last 15 minutes"
        )
        on.print(
            f"falls of counters are {'noted by the trigger' if has_trigger else 'not noted: late usage is polled alone'}"
        )
    return Exit.FINDINGS if refusals else Exit.DONE


def _tell(session: Session, data: dict[str, Any], show: Any, done: Any) -> None:
    if session.json:
        print(json_text(data))
    else:
        show(console(), done)
