"""How long to wait before the next try: exponential, with full jitter, never shorter than the server asks."""

from dataclasses import dataclass
from random import SystemRandom

FIRST_S = 0.1
LONGEST_S = 10.0
ASKED_S_MAX = 60.0
_CHANCE = SystemRandom()


@dataclass(slots=True)
class Pauses:
    """Of one run of failures. Full jitter: clients that failed together do not come back together."""

    first_s: float = FIRST_S
    longest_s: float = LONGEST_S
    failed: int = 0

    def next_s(self, asked_s: float = 0.0) -> float:
        ceiling = min(self.longest_s, self.first_s * 2 ** min(self.failed, 30))
        self.failed += 1
        return min(asked_s, ASKED_S_MAX) + _CHANCE.uniform(0, ceiling)
