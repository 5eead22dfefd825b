"""What the tests of group commit write with: a ledger in plain Python that keeps a writer's contract, and calls for it."""

from collections.abc import Sequence

from meterbook.core.entries import Entry, check_entries
from meterbook.core.recorded import Answer


def call_of(*keys: str, amount: str = "1") -> list[Entry]:
    """One caller's entries."""
    said = [
        {"actor": "ada", "source": "workflow", "description": "gpt-4o", "amount": amount, "event_key": key}
        for key in keys
    ]
    return check_entries(said, "USD")


class Ledger:
    """All or nothing, and the first writer of a key decides what it says. `groups` are the writes, by their number of entries."""

    def __init__(self) -> None:
        self.first: dict[str, str] = {}
        self.groups: list[int] = []

    def write(self, entries: Sequence[Entry]) -> list[Answer]:
        self.groups.append(len(entries))
        outcomes = [self._outcome(entry) for entry in entries]
        if "conflict" in outcomes:
            outcomes = ["not_written" if outcome == "inserted" else outcome for outcome in outcomes]
        else:
            self.first |= {entry.key: entry.fingerprint for entry in entries}
        return [
            Answer(n, entry.key, outcome, "user:ada", 1, None, entry.amount, None)
            for n, (entry, outcome) in enumerate(zip(entries, outcomes, strict=True), start=1)
        ]

    def _outcome(self, entry: Entry) -> str:
        if entry.key not in self.first:
            return "inserted"
        return "replayed" if self.first[entry.key] == entry.fingerprint else "conflict"


def outcomes_of(answers: Sequence[Answer]) -> list[str]:
    return [answer.outcome for answer in answers]
