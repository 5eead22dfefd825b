"""``meterbook migrate``, ``compact`` and ``doctor``: what keeps a ledger going."""

import typer

from meterbook.cli.command import Session, command
from meterbook.cli.exits import Exit
from meterbook.cli.opening import migrate_ledger, open_book
from meterbook.cli.screen import console, table
from meterbook.plain import json_text

app = typer.Typer()


@command(app, "migrate")
async def migrate(session: Session) -> Exit:
    """Bring the database up to this version: may be repeated, beside running writers, and twice at once."""
    applied = await migrate_ledger(session)
    if session.json:
        print(json_text({"applied": applied}))
    else:
        console().print("\n".join(f"applied {name}" for name in applied) or "nothing to do: the database is up to date")
    return Exit.DONE


@command(app, "compact")
async def compact(session: Session) -> Exit:
    """Fold what was recorded into the totals, until nothing waits. Figures stay the same; reading stays fast."""
    async with open_book(session) as book:
        compacted = await book.compact()
    entities = len(compacted.entities)
    if session.json:
        print(json_text({"deltas": compacted.deltas, "entities": entities}))
    else:
        console().print(f"folded {compacted.deltas:,} deltas; entities whose total moved: {entities:,}")
    return Exit.DONE


@command(app, "doctor")
async def doctor(session: Session) -> Exit:
    """Look at the engine, its settings, migrations, partitions, compaction and clock: exit code 1 if something needs care."""
    async with open_book(session) as book:
        findings = await book.doctor()
    if session.json:
        print(json_text({"findings": findings}))
    else:
        on = console()
        made = table(on, "", "what", "value", "advice")
        for finding in findings:
            made.add_row(
                "ok" if finding.ok else "!!", finding.name, finding.value, "" if finding.ok else finding.advice
            )
        on.print(made)
    return Exit.DONE if all(finding.ok for finding in findings) else Exit.FINDINGS
