"""Figures of a run: contenders take turns, so that the machine's moods hit all alike; medians with their range."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

Turn = Callable[[], Awaitable[Mapping[str, float]]]
"""One contender's turn of one round: figure → value."""


@dataclass(frozen=True, slots=True)
class Figure:
    """What was measured, once a round. `name` is unique in the run."""

    name: str
    unit: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.values)

    @property
    def shown(self) -> str:
        if len(self.values) == 1:
            return f"{number(self.median)} {self.unit}"
        return f"{number(self.median)} ({number(min(self.values))} – {number(max(self.values))}) {self.unit}"


def number(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.3g}"


async def take_turns(rounds: int, turns: Sequence[Turn], unit: str) -> list[Figure]:
    """A B C, A B C, …"""
    seen: dict[str, list[float]] = {}
    for _ in range(rounds):
        for turn in turns:
            for name, value in (await turn()).items():
                seen.setdefault(name, []).append(value)
    return [Figure(name, unit, tuple(values)) for name, values in seen.items()]


def quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
