"""What a run is asked for."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Options:
    """`quick`: smoke, its figures mean nothing. `soak_s`: how long the size of usage_delta is watched."""

    rounds: int
    quick: bool
    soak_s: int
