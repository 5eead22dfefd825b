"""Every refusal, drawn as a tree. `code` is stable and public; `retryable` says whether the same call may succeed later.

MeterbookError
├── InvalidRequest             what the caller said can't be: nothing was written, the same call will fail again
│   ├── InvalidUsage           entries that are no usage; names every bad entry and why
│   ├── InvalidCatalog         a catalog of plans with mistakes, each named by its field
│   ├── InvalidSettings        a server's configuration with mistakes, each named
│   ├── InvalidMapping         a mapping of legacy counters with mistakes, each with what to write instead
│   ├── CutoverRefused         a step of the cutover that can't be taken as things stand
│   ├── UnknownPlan · UnknownInterval · UnknownEntity · UnknownPeriod · UnknownEntry · InvalidCursor
│   ├── CorrectionRefused      below zero, or of a correction
│   ├── UnknownPrice           a price at Stripe that no plan of the catalog lists: the same code as UnknownPlan
│   ├── LimitRefused · BaselineRefused · UnknownHold · UnknownDelivery · UnknownEvent · UnsettledMoney
│   ├── BadSignature · BadEvent a webhook that Stripe did not sign, or that lacks what is needed of it
│   ├── MembershipRefused      a second organization, an owner who leaves, somebody who is no member
│   ├── NotPermitted · AheadOfClock  the login may not do that, or is not believed about the future
│   ├── InvalidKey · ScopeMissing · UnknownKey   who asks the HTTP door: not known, or known and not allowed
│   ├── UnsuitableConnection   a `conn` that no transaction of psycopg's lies beneath
│   ├── ForkedBook             a Book used in another process than the one that opened it
│   ├── WrongLedger            another currency or kind of free period than the ledger's
│   ├── NotADemo               made-up rows among real ones
│   ├── SpoolTaken · SpoolUnreadable  a client's folder that another process uses, or that can't be read
│   ├── ClientClosed           a client that was closed, or never opened
│   └── StripeRefused          Stripe does not take the call as it stands; the outbox tries again all the same, and then tells
├── KeyConflict                a key was used for something else; carries both versions
├── Denied                     a hold that was not granted; carries the admission
├── ServerRefused              a server's refusal of a kind that this version does not know; carries its code
├── EntriesRefused             of what a client sent later, some was refused; carries each with its reason
├── Undelivered                a client without a spool was closed with entries in memory; carries them
├── CardDeclined               an invoice is there and was not paid; Stripe tries again
└── Unavailable                could not be determined or written now; nothing was written; retry
    ├── AttributionUnavailable who pays, or for which period
    ├── InProgress             another writer of the same key has not finished
    ├── TransactionConflict    a serialization failure or a deadlock: repeat the whole transaction
    ├── Overloaded             the recorder's queue is full, or a client's memory
    ├── Unreachable            a client's server does not answer; UnexpectedAnswer: something else does
    ├── ServerFault            a fault of the server, which its log tells
    ├── SpoolFull · SpoolFailed  a client's folder has no room, or its disk fails
    ├── StripeUnavailable      Stripe was not reached, or answered that it can't now; what came of the call is unknown
    ├── LedgerUnavailable      the database can't be reached, or is not migrated
    └── EngineUnavailable      no PostgreSQL could be started here
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meterbook.client.results import Refusal, Spooled
    from meterbook.core.admission import Admission

PROBLEM_TYPE = "urn:meterbook:problem:"
"""Before an error's code: the `type` of its problem document (RFC 9457), by which a client knows a server's refusal from a stranger's."""


class MeterbookError(Exception):
    """Something went wrong."""

    code = "error"
    retryable = False

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or type(self).__doc__)


class InvalidRequest(MeterbookError):
    """The request can't be carried out as it stands."""

    code = "invalid_request"


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong: the entry's position in the call from 0 (None: no entry, or not known which), the field, a stable code, a sentence."""

    index: int | None
    field: str
    code: str
    message: str

    def __str__(self) -> str:
        place = "" if self.index is None else f"entry {self.index}: "
        return f"{place}{self.field}: {self.message}"


class InvalidUsage(InvalidRequest):
    """One or more entries can't be recorded; nothing of the call was written."""

    code = "invalid_usage"

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(map(str, self.problems)))


class InvalidCatalog(InvalidRequest):
    """The catalog of plans has mistakes."""

    code = "invalid_catalog"

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class InvalidSettings(InvalidRequest):
    """The server's configuration has mistakes."""

    code = "invalid_settings"

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class InvalidMapping(InvalidRequest):
    """The mapping of legacy counters has mistakes, or doesn't fit their tables."""

    code = "invalid_mapping"

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class CutoverRefused(InvalidRequest):
    """A step of the cutover that can't be taken as things stand."""

    code = "cutover_refused"


class UnknownPlan(InvalidRequest):
    """A plan that the catalog doesn't have: an error to fix, never the free plan."""

    code = "unknown_plan"

    def __init__(self, plan: str, known: Sequence[str]) -> None:
        self.plan, self.known = plan, tuple(known)
        super().__init__(f"plan {plan!r} is not in the catalog; it has {', '.join(self.known)}")


class UnknownPrice(UnknownPlan):
    """A price at Stripe that no plan of the catalog lists: an error to fix, never the free plan."""

    def __init__(self, prices: Sequence[str]) -> None:
        self.plan, self.known, self.prices = "", (), tuple(prices)
        InvalidRequest.__init__(
            self,
            f"{' and '.join(self.prices) or 'no price'}: no plan of the catalog lists it; add it to its plan's prices",
        )


class UnknownInterval(InvalidRequest):
    """A billing interval that is no whole number of months."""

    code = "unknown_interval"

    def __init__(self, interval: str) -> None:
        self.interval = interval
        super().__init__(f"interval {interval!r} is not a whole number of months or years")


class UnknownEntity(InvalidRequest):
    """An organization or workspace that was never made known."""

    code = "unknown_entity"


class UnknownPeriod(InvalidRequest):
    """The entity has no such period."""

    code = "unknown_period"

    def __init__(self, entity: str, period: object) -> None:
        self.entity, self.period = entity, period
        super().__init__(f"{entity} has no period {period!r}")


class NotPermitted(InvalidRequest):
    """The database's login may not do that."""

    code = "not_permitted"


class AheadOfClock(InvalidRequest):
    """The time of the call lies ahead of the database's clock, and the login doesn't own the schema: open the ledger without `clock`."""

    code = "ahead_of_clock"


class UnknownEntry(InvalidRequest):
    """No entry has this id."""

    code = "unknown_entry"

    def __init__(self, entry: str) -> None:
        self.entry = entry
        super().__init__(f"no entry has the id {entry!r}")


class InvalidCursor(InvalidRequest):
    """A cursor that no page gave out."""

    code = "invalid_cursor"


class CorrectionRefused(InvalidRequest):
    """An entry and its corrections never fall below zero, and a correction is not itself corrected."""

    code = "correction_refused"


class MembershipRefused(InvalidRequest):
    """One organization a user; the owner stays until the ownership is transferred."""

    code = "membership_refused"


class SeatsRefused(InvalidRequest):
    """Stripe can't be told how many seats this subscription has."""

    code = "seats_refused"


class LimitRefused(InvalidRequest):
    """The stored limit may not be set to this, or not by this person."""

    code = "limit_refused"


class BaselineRefused(InvalidRequest):
    """The baseline of a closed period never changes."""

    code = "baseline_refused"


class UnknownHold(InvalidRequest):
    """No hold has this id."""

    code = "unknown_hold"


class UnknownDelivery(InvalidRequest):
    """The outbox has no such row."""

    code = "unknown_delivery"


class UnknownEvent(InvalidRequest):
    """No webhook event with this id was received."""

    code = "unknown_event"


class BadSignature(InvalidRequest):
    """Nobody who knows a webhook secret signed this body lately; nothing was stored."""

    code = "bad_signature"


class BadEvent(InvalidRequest):
    """A webhook event that lacks something that is needed of it."""

    code = "bad_event"


class UnsettledMoney(InvalidRequest):
    """Money of this entity can't be billed: mend its Stripe ids or its owner, or apply the events that wait, first."""

    code = "unsettled_money"


class InvalidKey(InvalidRequest):
    """No API key, or none that is known and in force."""

    code = "invalid_key"


class ScopeMissing(InvalidRequest):
    """The API key may not do that."""

    code = "scope_missing"


class UnknownKey(InvalidRequest):
    """No API key has this id."""

    code = "unknown_key"


class UnsuitableConnection(InvalidRequest):
    """What was passed as `conn` is no connection through which the ledger can record."""

    code = "unsuitable_connection"


class ForkedBook(InvalidRequest):
    """A Book serves the process that opened it alone; open one after the fork."""

    code = "forked_book"


class WrongLedger(InvalidRequest):
    """The catalog doesn't fit this ledger."""

    code = "wrong_ledger"


class SpoolTaken(InvalidRequest):
    """Another process, or another client of this one, uses this folder: give each its own."""

    code = "spool_taken"


class SpoolUnreadable(InvalidRequest):
    """The folder of a client holds what this version can't read: nothing of it was changed."""

    code = "spool_unreadable"


class ClientClosed(InvalidRequest):
    """The client is not open: use it inside its `with` block, and open one after a fork."""

    code = "client_closed"


class ServerRefused(MeterbookError):
    """The server refused, by a code that this version of the client does not know."""

    def __init__(self, code: str, message: str, *, retryable: bool = False) -> None:
        self.code, self.retryable = code, retryable
        super().__init__(message)


class EntriesRefused(MeterbookError):
    """Some of what was handed in before was refused, for good. None of it is recorded."""

    code = "entries_refused"

    def __init__(self, refusals: "Sequence[Refusal]") -> None:
        self.refusals = tuple(refusals)
        super().__init__("; ".join(map(str, self.refusals)))


class Undelivered(MeterbookError):
    """What was waiting in memory could not be recorded before the client was closed."""

    code = "undelivered"

    def __init__(self, left: "Spooled", bodies: Sequence[Mapping[str, object]]) -> None:
        self.left, self.bodies = left, tuple(bodies)
        super().__init__(f"{left.calls} calls worth {left.exposure} were not recorded; their bodies are in `bodies`")


class NotADemo(InvalidRequest):
    """Somebody is known in this ledger, which is no demo: made-up rows go into a ledger of their own, such as another --home."""

    code = "not_a_demo"


def _said(value: str | Decimal | int | None) -> str:
    return f"{value:f}" if isinstance(value, Decimal) else str(value)


@dataclass(frozen=True, slots=True)
class Conflict:
    """One key, two versions: what its first writer said, and what was said now. Amounts are exact."""

    index: int
    entry: str
    first: Mapping[str, str | Decimal | int | None]
    now: Mapping[str, str | Decimal | int | None]

    def __str__(self) -> str:
        return f"entry {self.index}: {self.versions}"

    @property
    def versions(self) -> str:
        """What differs, then and now, without the place in the call."""
        differing = (name for name in self.now if self.now[name] is not None and self.now[name] != self.first.get(name))
        shown = ", ".join(
            f"{name} {_said(self.first.get(name))} then, {_said(self.now[name])} now" for name in differing
        )
        return f"its key was used for something else ({shown})"


class KeyConflict(MeterbookError):
    """A key was used again for something else; nothing was written. Use a new key, or correct the first entry."""

    code = "key_conflict"

    def __init__(self, conflicts: Sequence[Conflict]) -> None:
        self.conflicts = tuple(conflicts)
        super().__init__("; ".join(map(str, self.conflicts)))


class Denied(MeterbookError):
    """There is not enough left for this work."""

    code = "denied"

    def __init__(self, admission: "Admission") -> None:
        self.admission = admission
        self.retryable = admission.retryable
        super().__init__(admission.message)


class Unavailable(MeterbookError):
    """It could not be done now and nothing was written; try again."""

    code = "unavailable"
    retryable = True


class AttributionUnavailable(Unavailable):
    """Who pays, or for which period, could not be determined; nothing was written, try again.

    In a caller's transaction above READ COMMITTED only a new transaction sees what was made known meanwhile.
    """

    code = "attribution_unavailable"


class InProgress(Unavailable):
    """Another writer of the same key has not finished; nothing was written, try again."""

    code = "in_progress"


class TransactionConflict(Unavailable):
    """PostgreSQL asks to repeat the whole transaction (serialization failure or deadlock)."""

    code = "transaction_conflict"


class Overloaded(Unavailable):
    """More usage is waiting than the recorder may hold; try again."""

    code = "overloaded"


class LedgerUnavailable(Unavailable):
    """The database can't be reached or doesn't answer; try again.

    If the answer to a commit was lost, it may have been written all the same: the key makes the retry safe.
    """

    code = "ledger_unavailable"


class Unreachable(Unavailable):
    """The server can't be reached or doesn't answer in time; try again.

    It may have been written all the same: the keys, in `event_keys`, make the retry safe.
    """

    code = "unreachable"

    def __init__(self, message: str | None = None, event_keys: Sequence[str] = ()) -> None:
        self.event_keys = tuple(event_keys)
        super().__init__(message)


class UnexpectedAnswer(Unreachable):
    """What answers is no meterbook server: a proxy, or another service."""

    code = "unexpected_answer"


class ServerFault(Unavailable):
    """A fault of the server; its log has more under the request's id. It may have been written all the same."""

    code = "internal_error"


class SpoolFull(Unavailable):
    """The client's folder holds as much as it may, or its disk is full; this call is neither there nor recorded."""

    code = "spool_full"


class SpoolFailed(Unavailable):
    """The disk under the client's folder does not take what is written; this call is neither there nor recorded."""

    code = "spool_failed"


class EngineUnavailable(Unavailable):
    """No PostgreSQL can be started here."""

    code = "engine_unavailable"


class StripeRefused(InvalidRequest):
    """Stripe does not take the call as it stands."""

    code = "stripe_refused"

    def __init__(self, message: str | None = None, *, is_answer: bool = False) -> None:
        super().__init__(message)
        self.is_answer = is_answer
        """To a call with an idempotency key, for which Stripe may repeat it for a day."""


class CardDeclined(MeterbookError):
    """The card was declined: the invoice stays open, and Stripe tries again."""

    code = "card_declined"


class StripeUnavailable(Unavailable):
    """Stripe was not reached, or could not answer; what came of the call is unknown."""

    code = "stripe_unavailable"

    def __init__(self, message: str | None = None, *, is_answer: bool = False) -> None:
        super().__init__(message)
        self.is_answer = is_answer
        """A server error to a call with an idempotency key, for which Stripe repeats it for a day."""
