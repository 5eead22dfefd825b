"""Seeded streams of usage events, the same facts for every contender."""

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal

from meterbook.core.entries import Usage

MODELS = (
    "gpt-4o",
    "gpt-4o-mini",
    "claude-sonnet",
    "claude-haiku",
    "gemini-pro",
    "mistral-large",
    "embedding-3",
    "whisper-1",
)
SOURCES = ("workflow", "copilot", "workspace-chat", "knowledge-base")
ZIPF_ENTITIES = 2_000
ZIPF_EXPONENT = 1.1


@dataclass(frozen=True, slots=True)
class Event:
    """One piece of usage. `entity` is the number of the user who pays."""

    entity: int
    source: str
    model: str
    amount: Decimal
    key: str

    @property
    def actor(self) -> str:
        return f"user_{self.entity}"

    def usage(self) -> Usage:
        return Usage(self.actor, self.source, self.model, self.amount, event_key=self.key)


def hot(_: random.Random) -> int:
    return 0


def spread_over(entities: int) -> Callable[[random.Random], int]:
    return lambda rng: rng.randrange(entities)


def zipf(entities: int = ZIPF_ENTITIES) -> Callable[[random.Random], int]:
    """Few entities use much, many a little."""
    weights = list(itertools.accumulate(1 / (rank + 1) ** ZIPF_EXPONENT for rank in range(entities)))
    numbers = range(entities)
    return lambda rng: rng.choices(numbers, cum_weights=weights)[0]


def events(name: str, choose: Callable[[random.Random], int], seed: int = 1) -> Iterator[Event]:
    """Without end; keys of another `name` are other keys."""
    rng = random.Random(f"{name}/{seed}")
    for n in itertools.count():
        amount = Decimal(rng.randrange(1, 100_000)).scaleb(-6)
        yield Event(choose(rng), rng.choice(SOURCES), rng.choice(MODELS), amount, f"{name}:{seed}:{n}")
