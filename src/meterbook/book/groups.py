"""Group commit, the part that knows no clock and no thread: which waiting calls are written together, and what became of each."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from meterbook.core.entries import Entry
from meterbook.core.recorded import Answer

ENTRIES_PER_GROUP_MAX = 1_000
ENTRIES_WAITING_MAX = 20_000
FLUSHERS_MAX = 2
QUEUE_WAIT_S = 5
GROUP_KEY_WAIT_MS = 10
"""How long a group waits for a key that somebody else holds. Who needs it asks again, apart from the others, until 5 s are over (§3.4)."""
GROUP_ATTRIBUTE_WAIT_MS = 50
"""How long a group waits for customers that somebody is changing; who needs them then waits alone."""
CALLS_PER_GROUP_MAX = 500
"""Holds, or ends of holds, that are decided in one transaction."""
CALLS_WAITING_MAX = 20_000
KEY_POLL_S = 0.1
KEY_POLLS_MAX = 44
SOUND = frozenset({"inserted", "replayed"})
"""A group without another outcome was written; with one, nothing of it was."""
INNOCENT = SOUND | {"not_written"}

Done = TypeVar("Done")


@dataclass(slots=True, eq=False)
class Call(Generic[Done]):
    """One caller's entries, and how to tell the caller. `alone`: waits for a key, and shares no group."""

    entries: Sequence[Entry]
    done: Done
    alone: bool = False


def take_group(waiting: deque[Call[Done]]) -> list[Call[Done]]:
    """The calls to write next, in order of arrival. Of two with the same key the second waits for the next group (§3.3)."""
    group: list[Call[Done]] = []
    later: list[Call[Done]] = []
    keys: set[str] = set()
    size = 0
    if waiting and waiting[0].alone:
        return [waiting.popleft()]
    while waiting and (not group or size + len(waiting[0].entries) <= ENTRIES_PER_GROUP_MAX) and not waiting[0].alone:
        call = waiting.popleft()
        its_keys = [entry.key for entry in call.entries]
        if keys.isdisjoint(its_keys):
            group.append(call)
            keys.update(its_keys)
            size += len(its_keys)
        else:
            later.append(call)
    waiting.extendleft(reversed(later))
    return group


def entries_of(group: Iterable[Call[Done]]) -> list[Entry]:
    return [entry for call in group for entry in call.entries]


@dataclass(frozen=True, slots=True)
class Settled(Generic[Done]):
    """`answered` calls have their outcome; `again` were innocent in a group that was refused."""

    answered: list[tuple[Call[Done], list[Answer]]]
    again: list[Call[Done]]


def settle_group(group: Sequence[Call[Done]], answers: Sequence[Answer]) -> Settled[Done]:
    """When a group was refused, the guilty are answered and the innocent go again at once."""
    shares = list(_shares(group, answers))
    if len(group) == 1 or {answer.outcome for answer in answers} <= SOUND:
        return Settled(shares, [])
    settled: Settled[Done] = Settled([], [])
    for call, its_answers in shares:
        if {answer.outcome for answer in its_answers} <= INNOCENT:
            settled.again.append(call)
        else:
            settled.answered.append((call, its_answers))
    return settled


def _shares(group: Sequence[Call[Done]], answers: Sequence[Answer]) -> Iterator[tuple[Call[Done], list[Answer]]]:
    position = 0
    for call in group:
        following = position + len(call.entries)
        yield call, list(answers[position:following])
        position = following


def all_in_progress(answers: Sequence[Answer]) -> bool:
    """Somebody else holds a key of the group, nobody knows which: each call has to be written alone."""
    return bool(answers) and answers[0].outcome == "in_progress" and all(a.outcome == "in_progress" for a in answers)
