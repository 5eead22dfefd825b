"""What happens in the demo's month, from the seed alone: the same steps on every machine."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_DOWN, Decimal
from random import Random

from meterbook.core.entries import Usage
from meterbook.demo import cast
from meterbook.pricing import PriceBook, Tokens

RUNS_A_WEEKDAY_POINT = 20
TOOL_PRICE, RUN_PRICE, HELD = Decimal("0.008"), Decimal("0.001"), Decimal("1.00")
LENGTHS = (2, 3, 4, 6, 8, 10, 12, 16)
"""Of contexts: agents call a model again and again with all that was said before."""
ZERO = Decimal(0)
FOUR_WEEKS = timedelta(weeks=4)
"""From a Monday to a Monday."""


@dataclass(frozen=True, slots=True)
class Run:
    """An agent's run: its entries are recorded in one call, all or nothing, when it ends."""

    at: datetime
    entries: tuple[Usage, ...]


@dataclass(frozen=True, slots=True)
class Retry:
    """The caller never saw the answer, and sends the same again."""

    at: datetime
    entries: tuple[Usage, ...]


@dataclass(frozen=True, slots=True)
class Tampered:
    """A retry that names another amount for the same key: to be refused."""

    at: datetime
    entry: Usage


@dataclass(frozen=True, slots=True)
class Flush:
    """A stream reports its running total; reports may come twice and out of order."""

    at: datetime
    actor: str
    request: str
    total: Decimal


@dataclass(frozen=True, slots=True)
class Correction:
    """Support gives back a part of one entry."""

    at: datetime
    of: Usage
    amount: Decimal
    reason: str
    event_key: str


@dataclass(frozen=True, slots=True)
class Turned:
    """Somebody on the free plan who has used it up asks whether work may begin; it never does."""

    at: datetime
    actor: str


@dataclass(frozen=True, slots=True)
class Careful:
    """A long run that sets money aside first. `cost` None: it crashed, and its hold runs out."""

    at: datetime
    actor: str
    hold_id: str
    amount: Decimal
    cost: Decimal | None


Step = Run | Retry | Tampered | Flush | Correction | Turned | Careful


def steps(seed: int = cast.SEED) -> list[Step]:
    """All steps, in the order in which the ledger learns of them."""
    random = Random(seed)
    runs, turned = _admitted(sorted(_runs(random), key=lambda run: run.at))
    everything: list[Step] = [
        *runs,
        *_retries(random, runs),
        *_tampered(random, runs),
        *_streams(random),
        *_corrections(random, runs),
        *turned,
        *_careful(random),
    ]
    return sorted(everything, key=lambda step: step.at)


def running_month(seed: int = cast.SEED) -> list[Run]:
    """The month after, as far as it has gone when the demo is served: the same runs four weeks later, under other keys.

    Who is on the free plan has used it up.
    """
    runs = [_later_run(step) for step in steps(seed) if isinstance(step, Run) and _pays_in_june(step)]
    return [run for run in runs if _began(run) >= cast.MONTH_END and run.at < cast.SERVED_AT]


def _began(run: Run) -> datetime:
    return run.entries[0].occurred_at or run.at


def _pays_in_june(run: Run) -> bool:
    actor = run.entries[0].actor
    return actor == cast.NEWCOMER or actor not in cast.unsubscribed()


def _later_run(run: Run) -> Run:
    return Run(run.at + FOUR_WEEKS, tuple(map(_later_entry, run.entries)))


def _later_entry(entry: Usage) -> Usage:
    occurred_at = None if entry.occurred_at is None else entry.occurred_at + FOUR_WEEKS
    return entry._replace(
        event_key=f"june_{entry.event_key}", execution=f"june_{entry.execution}", occurred_at=occurred_at
    )


def _runs(random: Random) -> Iterator[Run]:
    prices = PriceBook()
    number = 0
    day = cast.MONTH_START
    while day < cast.MONTH_END:
        for _ in range(cast.WEEKDAY_WEIGHTS[day.weekday()] * RUNS_A_WEEKDAY_POINT):
            number += 1
            yield _run(random, prices, number, day)
        day += timedelta(days=1)


def _admitted(runs: list[Run]) -> tuple[list[Run], list[Turned]]:
    """As an application does that asks before it works: who is on the free plan works until it is used up."""
    used = dict.fromkeys(cast.unsubscribed(), ZERO)
    admitted, turned = [], []
    for run in runs:
        actor = run.entries[0].actor
        joined = actor == cast.NEWCOMER and run.at >= cast.NEWCOMER_JOINED_AT - timedelta(hours=1)
        if actor not in used or joined:
            admitted.append(run)
        elif used[actor] < cast.FREE_LIMIT:
            admitted.append(run)
            used[actor] += sum(map(amount_of, run.entries), ZERO)
        else:
            turned.append(Turned(run.at, actor))
    return admitted, turned


def _run(random: Random, prices: PriceBook, number: int, day: datetime) -> Run:
    (hour,) = random.choices(range(24), cast.HOUR_WEIGHTS)
    at = day + timedelta(hours=hour, seconds=random.randrange(3600))
    names = cast.people()
    (actor,) = random.choices(names, [_busyness(i) for i in range(len(names))])
    began = Usage(
        actor,
        _source(random),
        "run",
        RUN_PRICE,
        category="fixed",
        event_key=f"run_{number:05}:0",
        workspace=_workspace(random, actor),
        workflow=random.choice(cast.AGENTS),
        execution=f"run_{number:05}",
        occurred_at=at,
    )
    entries = [began]
    for line in range(1, random.randint(3, 10)):
        at += timedelta(seconds=random.randint(1, 40))
        named = began._replace(event_key=f"run_{number:05}:{line}", line=str(line), occurred_at=at)
        entries.append(_costing(random, prices, named, at))
    return Run(_recorded_at(random, at), tuple(entries))


def _busyness(rank: int) -> int:
    """A few people do much, many do little; neighbours in the cast differ."""
    return 60 // (1 + rank * 17 % 41) + 2


def _workspace(random: Random, actor: str) -> str | None:
    """A member's work is in the organization's workspace half of the time."""
    if actor == cast.FREELANCER:
        return cast.FREELANCER_WORKS_IN
    employer = next((each.name for each in cast.ORGANIZATIONS if actor in each.members), None)
    rooms = [workspace for workspace, payer in cast.WORKSPACES.items() if payer == employer]
    return random.choice([*rooms, None])


def _source(random: Random) -> str:
    (source,) = random.choices(("workflow", "copilot", "workspace-chat", "knowledge-base", "wand"), (60, 20, 10, 7, 3))
    return source


def _costing(random: Random, prices: PriceBook, named: Usage, at: datetime) -> Usage:
    if random.randrange(12) == 0:
        return named._replace(category="tool", description="web-search", amount=TOOL_PRICE)
    (model,) = random.choices(cast.MODELS, [each.share for each in cast.MODELS])
    length = random.choice(LENGTHS)
    tokens = Tokens(_around(random, model.prompt) * length, _around(random, model.answer))
    return named._replace(
        category="model",
        description=model.name,
        amount=prices.price(model.name, tokens, at),
        metadata={"input_tokens": tokens.input, "output_tokens": tokens.output},
    )


def _around(random: Random, ordinary: int) -> int:
    return random.randint(ordinary // 3, ordinary * 5 // 3)


def _recorded_at(random: Random, ended: datetime) -> datetime:
    """Mostly at once; a worker that was offline reports hours or days later."""
    delay = timedelta(hours=random.randint(2, 60)) if random.randrange(100) == 0 else timedelta(seconds=1)
    return min(ended + delay, cast.LAST_MOMENT)


def _retries(random: Random, runs: list[Run]) -> Iterator[Retry]:
    for run in random.sample(runs, len(runs) // 40):
        yield Retry(_later(run.at, minutes=random.randint(1, 90)), run.entries)


def _tampered(random: Random, runs: list[Run]) -> Iterator[Tampered]:
    for run in random.sample(runs, 12):
        entry = run.entries[-1]
        yield Tampered(_later(run.at, minutes=10), entry._replace(amount=amount_of(entry) + Decimal("0.01")))


def _streams(random: Random) -> Iterator[Flush]:
    for number in range(30):
        at = cast.MONTH_START + timedelta(hours=random.randrange(24 * 30), seconds=random.randrange(3600))
        actor = random.choice(cast.people())
        totals = [Decimal(thousandths) / 1000 for thousandths in sorted(random.sample(range(1, 400), 6))]
        reports = [*totals[:4], totals[2], totals[5], totals[4]]
        for i, total in enumerate(reports):
            yield Flush(_later(at, minutes=i), actor, f"voice_{number:02}", total)


def _corrections(random: Random, runs: list[Run]) -> Iterator[Correction]:
    for number, run in enumerate(random.sample(runs, 8)):
        dearest = max(run.entries, key=amount_of)
        half = (amount_of(dearest) / 2).quantize(Decimal("0.000001"), rounding=ROUND_DOWN)
        at = _later(run.at, minutes=200)
        yield Correction(at, dearest, -half, "the model answered in the wrong language", f"fix_{number}")


def _careful(random: Random) -> Iterator[Careful]:
    for number in range(90):
        at = cast.MONTH_START + timedelta(hours=random.randrange(24 * 31), seconds=random.randrange(3600))
        actor = random.choice(cast.CAREFUL)
        cost = Decimal(random.randint(100, 1_300)) / 1000
        yield Careful(at, actor, f"long_{number:02}", HELD, None if random.randrange(12) == 0 else cost)


def amount_of(entry: Usage) -> Decimal:
    return Decimal(entry.amount)


def _later(at: datetime, *, minutes: int) -> datetime:
    return min(at + timedelta(minutes=minutes), cast.LAST_MOMENT)
