"""What an answer means: taken, or not and whose fault it is. A refusal counts only if it is a problem document of meterbook's own."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Any

from meterbook.client.wire import admission
from meterbook.errors import (
    PROBLEM_TYPE,
    AheadOfClock,
    AttributionUnavailable,
    Conflict,
    CorrectionRefused,
    Denied,
    InProgress,
    InvalidCursor,
    InvalidKey,
    InvalidUsage,
    KeyConflict,
    LedgerUnavailable,
    MeterbookError,
    NotPermitted,
    Overloaded,
    Problem,
    ScopeMissing,
    ServerFault,
    ServerRefused,
    TransactionConflict,
    Unavailable,
    UnexpectedAnswer,
    UnknownEntity,
    UnknownEntry,
    UnknownHold,
    UnknownPeriod,
)

OK = 200
TOO_LARGE = 413
FORBIDDEN_STATUSES = frozenset({403, 501})
"""Of what this key, or the server's login, may do: another call may be allowed."""
BARRED_STATUSES = frozenset({401, 405, 415})
BARRED_CODES = frozenset({"not_found", "bad_query", "bad_body"})
"""Of this client's address, key or version, not of what it says."""
STUCK_CODES = frozenset({"internal_error", "in_progress", "attribution_unavailable", "transaction_conflict"})
"""Of one entry perhaps, while the server takes others."""
SHOWN_MAX = 200
UNREADABLE = (KeyError, TypeError, ValueError, ArithmeticError, AttributeError, RecursionError)
"""What reading an answer that is none raises."""


class Fault(Enum):
    """Why something was not taken. AWAY: nothing is, now. STUCK: not this, now. BARRED: nothing is, until somebody mends the client.

    FORBIDDEN: not this, until somebody allows it. TOO_LARGE: not in one request. REFUSED: not this, for good.
    """

    AWAY = "away"
    STUCK = "stuck"
    BARRED = "barred"
    FORBIDDEN = "forbidden"
    TOO_LARGE = "too_large"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class NotTaken:
    fault: Fault
    error: MeterbookError
    asked_s: float = 0.0
    problem: Mapping[str, Any] | None = None

    @property
    def is_worth_retrying(self) -> bool:
        return self.fault in (Fault.AWAY, Fault.STUCK)


def judge(status: int, body: bytes, asked: str | None, said: Mapping[str, Any]) -> NotTaken | Any:
    """JSON of what was taken, or why it was not. `asked`: Retry-After; `said`: the arguments, for errors that name them."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        answer = None
    if status == OK and answer is not None:
        return answer
    if not _is_problem(answer):
        shown = f"{body[:SHOWN_MAX]!r}" if body else "nothing"
        unexpected = UnexpectedAnswer(
            f"status {status} and no problem document but {shown}: is this a meterbook server?"
        )
        return NotTaken(Fault.AWAY, unexpected, _seconds(asked))
    error = error_of(answer, said)
    return NotTaken(fault_of(status, answer["code"], retryable=error.retryable), error, _seconds(asked), answer)


def _is_problem(answer: Any) -> bool:
    return (
        isinstance(answer, dict)
        and str(answer.get("type", "")).startswith(PROBLEM_TYPE)
        and isinstance(answer.get("code"), str)
        and isinstance(answer.get("detail"), str)
    )


def fault_of(status: int, code: str, *, retryable: bool) -> Fault:
    if code in STUCK_CODES:
        return Fault.STUCK
    if retryable:
        return Fault.AWAY
    if status == TOO_LARGE:
        return Fault.TOO_LARGE
    if status in FORBIDDEN_STATUSES:
        return Fault.FORBIDDEN
    if status in BARRED_STATUSES or code in BARRED_CODES:
        return Fault.BARRED
    return Fault.REFUSED


def _seconds(asked: str | None) -> float:
    """Retry-After in seconds; its other form, a date, is no reason to trust a clock."""
    return float(asked) if asked is not None and asked.isascii() and asked.isdigit() and len(asked) < 6 else 0.0  # noqa: PLR2004


# ------------------------------------------------------------------------------------------------------------- problem → error

PLAIN: dict[str, type[MeterbookError]] = {
    kind.code: kind
    for kind in (
        AheadOfClock, AttributionUnavailable, CorrectionRefused, InProgress, InvalidCursor, InvalidKey, LedgerUnavailable,
        NotPermitted, Overloaded, ScopeMissing, ServerFault, TransactionConflict, Unavailable, UnknownEntity, UnknownHold,
    )
}  # fmt: skip


def error_of(problem: Mapping[str, Any], said: Mapping[str, Any]) -> MeterbookError:
    """The library's own error, with its facts; `ServerRefused` with the server's code for one that isn't known here."""
    try:
        error = _known_error(problem, said)
    except UNREADABLE:
        error = None
    made = error or ServerRefused(problem["code"], problem["detail"], retryable=problem.get("retryable") is True)
    if problem.get("request_id"):
        made.add_note(f"request_id {problem['request_id']}")
    return made


def _known_error(problem: Mapping[str, Any], said: Mapping[str, Any]) -> MeterbookError | None:
    code: str = problem["code"]
    error: MeterbookError | None = None
    if code in PLAIN:
        error = PLAIN[code](problem["detail"])
    elif code == InvalidUsage.code:
        error = InvalidUsage(problems_of(problem["problems"]))
    elif code == KeyConflict.code:
        error = KeyConflict([conflict_of(each) for each in problem["conflicts"]])
    elif code == Denied.code:
        error = Denied(admission(problem["admission"]))
    elif code == UnknownEntry.code:
        error = UnknownEntry(said["entry"])
    elif code == UnknownPeriod.code:
        error = UnknownPeriod(said["entity"], said["period"])
    return error


def problems_of(found: Sequence[Mapping[str, Any]]) -> list[Problem]:
    return [Problem(each["index"], each["field"], each["code"], each["message"]) for each in found]


def conflict_of(found: Mapping[str, Any]) -> Conflict:
    return Conflict(found["index"], found["entry"], _version(found["first"]), _version(found["now"]))


def _version(said: Mapping[str, Any]) -> dict[str, str | Decimal | int | None]:
    return {name: Decimal(value) if name in ("amount", "total") and value else value for name, value in said.items()}
