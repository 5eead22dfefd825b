"""Events on their way out: raw bodies with Stripe's signatures."""

import hashlib
import hmac
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from tests.stripe_server.world import Thing

SECRET = "whsec_meterbook_tests"


def as_stripe_writes(thing: Thing) -> bytes:
    """JSON, indented: a signature is of these bytes, not of what they mean."""
    return msgspec.json.format(msgspec.json.encode(thing), indent=2)


@dataclass(frozen=True, slots=True)
class Delivery:
    """An event as it is posted to a webhook endpoint. `at`: when, by Stripe's clock."""

    event: Thing
    body: bytes
    at: int

    @property
    def kind(self) -> str:
        return str(self.event["type"])

    def signature(self, *secrets: str, at: int | None = None) -> str:
        """The header Stripe-Signature; while a secret is replaced, Stripe signs with both."""
        return sign(self.body, secrets or (SECRET,), self.at if at is None else at)


def sign(body: bytes, secrets: Sequence[str], at: int) -> str:
    signed = f"{at}.".encode() + body
    schemes = [f"v1={hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()}" for secret in secrets]
    return ",".join([f"t={at}", *schemes])


def delivery_of(event: Thing, at: int) -> Delivery:
    return Delivery(event, as_stripe_writes(event), at)


@dataclass
class Post:
    """Hands deliveries on, one after the other, in the order of the events; doing so twice, late or not at all is the test's part.

    `endpoint` is called by whichever thread caused the event, before that request is answered; it may call Stripe itself.
    What it raises leaves the delivery among `refused`.
    """

    endpoint: Callable[[Delivery], None] | None = None
    sent: list[Delivery] = field(default_factory=list)
    refused: list[tuple[Delivery, Exception]] = field(default_factory=list)
    _waiting: list[Delivery] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _busy: bool = False

    def put(self, deliveries: Sequence[Delivery]) -> None:
        """In the order of the events."""
        with self._lock:
            self._waiting += deliveries

    def hand_on(self) -> None:
        """If another thread is at it, it takes these too: the order stays, and an endpoint that calls Stripe waits for nobody."""
        with self._lock:
            if self._busy:
                return
            self._busy = True
        while (delivery := self._next()) is not None:
            self._send(delivery)

    def _next(self) -> Delivery | None:
        with self._lock:
            if self._waiting:
                return self._waiting.pop(0)
            self._busy = False
            return None

    def _send(self, delivery: Delivery) -> None:
        self.sent.append(delivery)
        if self.endpoint is None:
            return
        try:
            self.endpoint(delivery)
        except Exception as error:  # noqa: BLE001  like an endpoint's 500: the event is kept, and Stripe goes on
            self.refused.append((delivery, error))
