"""Faults by script: what goes wrong, at which call."""

import threading
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal

from tests.stripe_server.refusals import Refused

Kind = Literal[
    "timeout_before",  # never arrived, and no answer
    "timeout_after",  # done, but no answer
    "reset_before",
    "reset_after",
    "unavailable_503",  # refused by the gateway: nothing done, nothing kept
    "rate_limit_429",
    "lock_timeout_429",  # another request or process holds the object: nothing done, nothing kept
    "conflict_409",
    "card_error_402",  # a card is asked for money and refuses: nothing done
    "error_500_before",  # nothing done, but the 500 is kept under the key
    "error_500_after",  # done, and the 500 is kept under the key
    "declined",  # the bank refuses this once, whatever the card
    "late",  # arrives, and is executed only when released, or when the client has given up
]
NEVER_ARRIVED = {"timeout_before", "reset_before"}
NO_ANSWER = {"timeout_before", "timeout_after"}
RESET = {"reset_before", "reset_after"}

REFUSALS = {
    "unavailable_503": (503, "api_error", "Stripe is temporarily unavailable.", None),
    "rate_limit_429": (429, "invalid_request_error", "Request rate limit exceeded.", "rate_limit"),
    "lock_timeout_429": (
        429,
        "invalid_request_error",
        "This object cannot be accessed right now because another API request or Stripe process is currently accessing it.",
        "lock_timeout",
    ),
    "card_error_402": (402, "card_error", "Your card was declined.", "card_declined"),
    "conflict_409": (
        409,
        "idempotency_error",
        "There is currently another in-progress request using this Idempotent Key.",
        "idempotency_key_in_use",
    ),
}


def refusal_of(kind: str) -> Refused | None:
    """Of a request that is turned away at the door."""
    if kind not in REFUSALS:
        return None
    status, error_type, message, code = REFUSALS[kind]
    return Refused(status, error_type, message, **({"code": code} if code else {}))


@dataclass
class Fault:
    """From the `nth` call on that fits, `times` calls; None: every one, until it is removed."""

    kind: Kind
    method: str = "*"
    path: str = "*"
    nth: int = 1
    times: int | None = 1
    seen: int = 0
    released: threading.Event = field(default_factory=threading.Event)
    """Set by the test to let a `late` call go on."""
    arrived: threading.Event = field(default_factory=threading.Event)
    """Set when a call has met the fault; a `late` one: when it has begun, and holds its key."""

    def meets(self, method: str, path: str) -> bool:
        """Counts the call if it fits, and says whether it is one of those that fail."""
        if not (fnmatchcase(method, self.method) and fnmatchcase(path, self.path)):
            return False
        self.seen += 1
        return self.nth <= self.seen and (self.times is None or self.seen < self.nth + self.times)


@dataclass
class Script:
    """The faults to come; the first that meets a call has it."""

    faults: list[Fault] = field(default_factory=list)

    def add(self, kind: Kind, method: str = "*", path: str = "*", *, nth: int = 1, times: int | None = 1) -> Fault:
        fault = Fault(kind, method, path, nth, times)
        self.faults.append(fault)
        return fault

    def remove(self, fault: Fault) -> None:
        self.faults.remove(fault)
        fault.released.set()

    def clear(self) -> None:
        for fault in list(self.faults):
            self.remove(fault)

    def meeting(self, method: str, path: str) -> Fault | None:
        met = [fault for fault in self.faults if fault.meets(method, path)]
        if not met:
            return None
        if met[0].kind != "late":
            met[0].arrived.set()
        return met[0]
