"""Exit codes, and how an error is told: one table for every command."""

import json
import sys
from enum import IntEnum

from meterbook.cli.screen import console
from meterbook.errors import Denied, InvalidUsage, KeyConflict, LimitRefused, MeterbookError, Overloaded, UnsettledMoney
from meterbook.plain import error_data

PROBLEMS_SHOWN_MAX = 20


class Exit(IntEnum):
    """What a script can tell from a command's end. Stable."""

    DONE = 0
    FINDINGS = 1
    USAGE = 2
    CONFLICT = 3
    RETRY = 4
    DENIED = 5
    INTERRUPTED = 130


MEANINGS = {
    Exit.DONE: "done, now or by an earlier call with the same key",
    Exit.FINDINGS: "done, with findings: rejected rows, differences, settings",
    Exit.USAGE: "can't be done as asked; nothing was written",
    Exit.CONFLICT: "an event key was used before for something else; nothing was written",
    Exit.RETRY: "can't be done now; the same command may succeed later",
    Exit.DENIED: "denied: nothing is left, or somebody is blocked; nothing was written",
    Exit.INTERRUPTED: "interrupted; the same command goes on where it stopped",
}
ADVICE: dict[type[MeterbookError], str] = {
    KeyConflict: "An event key names one intent to charge, for ever. Use another key, or `meterbook correct` the first entry.",
    Denied: "`meterbook limits` and `credits` say what there is; `meterbook explain user:ID --denial` says why.",
    LimitRefused: "`meterbook limits` shows the plan's minimum and the blocks.",
    UnsettledMoney: "`meterbook close` says what it waits for.",
    Overloaded: "More is being recorded than the database takes. Run it again, in smaller parts.",
}


def exit_of(error: MeterbookError) -> Exit:
    if isinstance(error, KeyConflict):
        return Exit.CONFLICT
    if isinstance(error, Denied) and not error.retryable:
        return Exit.DENIED
    return Exit.RETRY if error.retryable else Exit.USAGE


def tell(error: MeterbookError, *, as_data: bool) -> Exit:
    """Writes the error to standard error, for a person or as JSON, and gives the exit code."""
    if as_data:
        print(json.dumps({"error": error_data(error)}, ensure_ascii=False), file=sys.stderr)
    else:
        on = console(sys.stderr)
        for line in _lines(error):
            on.print(line, soft_wrap=True)
    return exit_of(error)


def _lines(error: MeterbookError) -> list[str]:
    parts = _parts(error)
    lines = (
        [f"error: {parts[0]}"] if len(parts) == 1 else ["error:", *(f"  {part}" for part in parts[:PROBLEMS_SHOWN_MAX])]
    )
    if len(parts) > PROBLEMS_SHOWN_MAX:
        lines.append(f"  and {len(parts) - PROBLEMS_SHOWN_MAX} more")
    return [*lines, *(advice for kind, advice in ADVICE.items() if isinstance(error, kind))]


def _parts(error: MeterbookError) -> list[str]:
    if isinstance(error, InvalidUsage):
        return [str(problem) for problem in error.problems]
    if isinstance(error, KeyConflict):
        return [str(conflict) for conflict in error.conflicts]
    return [str(error)]
