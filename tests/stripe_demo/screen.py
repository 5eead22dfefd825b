"""What is shown of a step: calls to Stripe and webhooks from it since the last one, all invoices, the books, may Ada go on."""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal

from meterbook import Plan
from tests.stripe.stage import Stage
from tests.stripe_server.world import Thing

_ID = re.compile(r"/(in|sub|ch|price)_\w+")
WIDTH = 118


def dollars(cents: int) -> str:
    return f"{Decimal(cents).scaleb(-2):.2f}"


@dataclass
class Screen:
    stage: Stage
    entity: str
    say: Callable[[str], None]
    asked: int = 0
    told: int = 0

    def begin(self, plan: Plan) -> None:
        self.say("A Stripe on loopback, spoken to by the official SDK over HTTP; a ledger on the same clock.")
        self.say(f"{plan.code}: {plan.price} a month, {plan.included} included, {plan.refresh} refreshed a day.")
        self.say("Overage is asked for when 100.00 of it are due, and the rest when the period has ended.")

    async def show(self, title: str, what: str) -> None:
        self.say("")
        self.say(f"{self.stage.clock.now:%Y-%m-%d %H:%M}  {title.upper()}")
        self.say(f"  {what}")
        self._lines("asked", self._calls())
        self._lines("told", self._webhooks())
        self._lines("invoices", self._invoices(), each_alone=True)
        self._lines("books", await self._books(), each_alone=True)
        checked = await self.stage.book.check("ada")
        self._lines("ada", ["may go on" if checked.allowed else f"is stopped: {checked.code}"])

    async def end(self) -> None:
        """The proof: what the ledger charged is what Stripe was paid by our invoices, each once."""
        differences = await self.stage.book.verify()
        charged = [charge.amount_cents for charge in await self.stage.book.charges(self.entity) if charge.amount_cents]
        paid = [cents for cents, status in self.stage.invoices() if status == "paid"]
        self.say("")
        self.say(f"charged by the ledger  {' + '.join(map(dollars, charged))} = {dollars(sum(charged))}")
        self.say(f"paid by our invoices   {' + '.join(map(dollars, paid))} = {dollars(sum(paid))}")
        self.say(f"verify                 {differences or 'clean'}")
        assert charged == paid
        assert differences == []

    def _lines(self, name: str, parts: Iterable[str], *, each_alone: bool = False) -> None:
        lines = list(parts) if each_alone else folded(parts)
        for number, line in enumerate(lines):
            self.say(f"  {name if number == 0 else '':<9} {line}".rstrip())

    def _calls(self) -> list[str]:
        """By the relay and by whoever plays at Stripe; ids left out."""
        requests = self.stage.server.requests[self.asked :]
        self.asked += len(requests)
        return [f"{each.method} {_ID.sub('/…', each.path.removeprefix('/v1'))}" for each in requests]

    def _webhooks(self) -> list[str]:
        """What is applied, by its kind; what means nothing here is counted."""
        states = self.stage.states[self.told :]
        self.told += len(states)
        kinds = Counter(kind for kind, state in states if state != "ignored")
        ignored = sum(state == "ignored" for _, state in states)
        said = [kind if count == 1 else f"{kind} × {count}" for kind, count in kinds.items()]
        return [*said, f"{ignored} without meaning here"] if ignored else said

    def _invoices(self) -> list[str]:
        return [
            f"{each['id']}  {dollars(each['subtotal']):>7}  {each['status']:<5} {_purpose(each)}"
            for each in self.stage.server.things("invoice")
        ]

    async def _books(self) -> list[str]:
        """Each dated period: what was used of it beyond the refresh, what that is beyond the included, what was billed."""
        lines = []
        for period in sorted(await self.stage.book.periods(self.entity), key=lambda each: each.starts_at):
            if period.kind == "dated":
                usage = await self.stage.book.usage(self.entity, period.id)
                figures = f"used {usage.effective:>6.2f}  overage {usage.overage:>6.2f}  charged {dollars(usage.charged_cents):>6}"
                lines.append(f"{period.starts_at:%Y-%m-%d} to {period.ends_at:%Y-%m-%d}  {period.state:<7} {figures}")
        return lines


def _purpose(invoice: Thing) -> str:
    return str(invoice["description"] or f"the plan's price ({invoice['billing_reason']})")


def folded(parts: Iterable[str]) -> list[str]:
    """Parts with dots between them, in lines of no more than the width."""
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + len(part) + 3 <= WIDTH - 12:
            lines[-1] += f" · {part}"
        else:
            lines.append(part)
    return lines
