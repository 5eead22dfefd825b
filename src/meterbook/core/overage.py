"""From what was used to what the included does not cover (BEHAVIOUR §1, §9)."""

from dataclasses import dataclass
from decimal import Decimal

from meterbook.core.derivation import Derivation
from meterbook.core.money import EXACT, ZERO
from meterbook.core.refresh import Refresh


@dataclass(frozen=True, slots=True)
class EffectiveUsage:
    """The only usage that limits, charges and percentages know."""

    amount: Decimal
    total: Decimal
    refresh: Refresh

    def derivation(self, total: Derivation | None = None) -> Derivation:
        """With the rows of the total below it, if the caller has them."""
        whole = total or Derivation("total", self.total)
        refresh = self.refresh.derivation()
        if not isinstance(whole.value, Decimal) or whole.value == self.total:
            return Derivation("effective usage", self.amount, "max(0, total − daily refresh)", (whole, refresh))
        returned = Derivation(
            "given back in money", EXACT.subtract(whole.value, self.total), "corrections of closed periods"
        )
        formula = "max(0, total − given back − daily refresh)"
        return Derivation("effective usage", self.amount, formula, (whole, returned, refresh))


@dataclass(frozen=True, slots=True)
class Overage:
    amount: Decimal
    effective: EffectiveUsage
    included: Decimal | None

    def derivation(self, total: Derivation | None = None) -> Derivation:
        usage = self.effective.derivation(total)
        if self.included is None:
            return Derivation("overage", self.amount, "none on this plan", (usage,))
        terms = (usage, Derivation("included", self.included))
        return Derivation("overage", self.amount, "max(0, effective usage − included)", terms)


def effective_usage(total: Decimal, refresh: Refresh) -> EffectiveUsage:
    return EffectiveUsage(_at_least_zero(EXACT.subtract(total, refresh.total)), total, refresh)


def overage(effective: EffectiveUsage, included: Decimal | None) -> Overage:
    """`included` is None on every plan without overage (see `Plan.has_overage`), the free one too."""
    beyond = ZERO if included is None else EXACT.subtract(effective.amount, included)
    return Overage(_at_least_zero(beyond), effective, included)


def _at_least_zero(amount: Decimal) -> Decimal:
    return max(ZERO, amount)
