"""One request, answered: authentication, route, parameters, idempotency, the fault that is scripted for it, the call itself.

No sockets here; `Outcome` says what is to be sent, or that nothing is.
"""

import threading
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.stripe_server.cards import Card
from tests.stripe_server.deliveries import as_stripe_writes
from tests.stripe_server.faults import NEVER_ARRIVED, NO_ANSWER, RESET, Fault, Script, refusal_of
from tests.stripe_server.idempotency import Answer, Keys
from tests.stripe_server.parameters import decoded, parsed
from tests.stripe_server.reading import rendered
from tests.stripe_server.refusals import Refused
from tests.stripe_server.routes import Route, route_for
from tests.stripe_server.version import API_VERSION
from tests.stripe_server.world import Thing, World

LATE_MAX_S = 30
REFUSED_ONCE = Card(refusal=("card_declined", "generic_decline"))


@dataclass(frozen=True, slots=True)
class Asked:
    """`form`: the query of a GET or DELETE, the body of a POST. Header names in lower case."""

    method: str
    path: str
    form: str
    headers: dict[str, str]

    @property
    def key(self) -> str | None:
        """Of a POST; anywhere else a key has no effect."""
        return self.headers.get("idempotency-key") if self.method == "POST" else None


@dataclass(frozen=True, slots=True)
class Outcome:
    """`answer` with `sent` "held" or "reset" is what the client never sees."""

    sent: Literal["answered", "held", "reset"]
    answer: Answer | None


@dataclass(slots=True)
class Logged:
    """A request that came, as tests look at it. `status`: None for one that never arrived; `seen` is False if no answer got through."""

    method: str
    path: str
    params: dict[str, Any]
    key: str | None
    fault: str | None
    status: int | None = None
    replayed: bool = False
    seen: bool = True


@dataclass
class Exchange:
    world: World
    script: Script = field(default_factory=Script)
    keys: Keys = field(default_factory=Keys)
    log: list[Logged] = field(default_factory=list)
    crashes: list[BaseException] = field(default_factory=list)
    """Defects of this server; it raises them when it is closed."""
    lock: threading.RLock = field(default_factory=threading.RLock)
    busy: int = 0
    """Requests that are being answered."""
    _requests: int = 0

    def answer(self, asked: Asked) -> Outcome:
        with self.lock:
            self.busy += 1
        try:
            return self._outcome(asked)
        finally:
            with self.lock:
                self.busy -= 1

    def _outcome(self, asked: Asked) -> Outcome:
        with self.lock:
            fault = self.script.meeting(asked.method, asked.path)
            kind = fault.kind if fault else None
            entry = Logged(
                asked.method, asked.path, decoded(asked.form), asked.key, kind, seen=kind not in NO_ANSWER | RESET
            )
            self.log.append(entry)
            self._requests += 1
            request_id = f"req_{self.world.name}{self._requests:08d}"
        if kind in NEVER_ARRIVED:
            return Outcome(_sent(kind), None)
        answer = self._execute(asked, fault, entry, request_id)
        entry.status, entry.replayed = answer.status, "Idempotent-Replayed" in answer.headers
        return Outcome(_sent(kind), answer)

    def _execute(self, asked: Asked, fault: Fault | None, entry: Logged, request_id: str) -> Answer:
        try:
            refused = refusal_of(fault.kind) if fault else None
            if refused:
                raise refused
            _check_headers(asked)
            route, ids, params = _understood(asked, entry.params)
            replay = self._begin(asked, entry.params, request_id)
        except Refused as refused:
            return _refusal(refused, asked, request_id)
        if replay:
            return replay
        answer = self._call(asked, route, ids, params, fault, request_id)
        if asked.key:
            with self.lock:
                self.keys.finish(asked.key, answer)
        return answer

    def _begin(self, asked: Asked, params: dict[str, Any], request_id: str) -> Answer | None:
        with self.lock:
            return self.keys.begin(asked.key, asked.path, params, self.world.now, request_id) if asked.key else None

    def _call(
        self,
        asked: Asked,
        route: Route,
        ids: tuple[str, ...],
        params: dict[str, Any],
        fault: Fault | None,
        request_id: str,
    ) -> Answer:
        """From here on the answer is kept under the key, whatever it is."""
        kind = fault.kind if fault else None
        if fault and kind == "late":
            fault.arrived.set()
            fault.released.wait(LATE_MAX_S)
        if kind == "error_500_before":
            return _broken(asked, request_id)
        with self.lock:
            answer = self._act(asked, route, ids, params, kind, request_id)
        return _broken(asked, request_id) if kind == "error_500_after" else answer

    def _act(
        self,
        asked: Asked,
        route: Route,
        ids: tuple[str, ...],
        params: dict[str, Any],
        kind: str | None,
        request_id: str,
    ) -> Answer:
        expand = params.pop("expand", [])
        self.world.request = {"id": request_id, "idempotency_key": asked.key}
        self.world.next_card = REFUSED_ONCE if kind == "declined" else None
        try:
            found = route.act(self.world, params, *ids)
            return _written(200, rendered(self.world, found, expand), asked, request_id)
        except Refused as refused:
            return _refusal(refused, asked, request_id)
        except Exception as defect:  # noqa: BLE001  raised when the server is closed
            self.crashes.append(defect)
            return _refusal(
                Refused(500, "api_error", f"A defect of tests/stripe_server: {defect!r}"), asked, request_id
            )
        finally:
            self.world.request = {"id": None, "idempotency_key": None}
            self.world.next_card = None


def _sent(kind: str | None) -> Literal["answered", "held", "reset"]:
    if kind in NO_ANSWER:
        return "held"
    return "reset" if kind in RESET else "answered"


def _check_headers(asked: Asked) -> None:
    """Test keys only, and the one version whose shapes are spoken here."""
    key = asked.headers.get("authorization", "").removeprefix("Bearer ")
    if not key.startswith(("sk_test_", "rk_test_")):
        raise Refused(401, "invalid_request_error", f"Invalid API Key provided: {key[:8]}")
    version = asked.headers.get("stripe-version")
    if version != API_VERSION:
        raise Refused(400, "invalid_request_error", f"This server speaks Stripe-Version {API_VERSION}, not {version}.")


def _understood(asked: Asked, given: dict[str, Any]) -> tuple[Route, tuple[str, ...], dict[str, Any]]:
    found = route_for(asked.method, asked.path)
    if found is None:
        message = (
            f"Unrecognized request URL ({asked.method}: {asked.path}), or one that tests/stripe_server does not know."
        )
        raise Refused(404, "invalid_request_error", message)
    route, ids = found
    return route, ids, parsed(route.params, given, route.takes)


def _broken(asked: Asked, request_id: str) -> Answer:
    return _refusal(Refused(500, "api_error", "An error occurred internally with the Stripe API."), asked, request_id)


def _refusal(refused: Refused, asked: Asked, request_id: str) -> Answer:
    answer = _written(refused.status, refused.body, asked, request_id)
    return Answer(
        answer.status, answer.body, {**answer.headers, "Stripe-Should-Retry": str(refused.may_be_repeated).lower()}
    )


def _written(status: int, thing: Thing, asked: Asked, request_id: str) -> Answer:
    headers = {"Content-Type": "application/json", "Request-Id": request_id, "Stripe-Version": API_VERSION}
    if asked.key:
        headers["Idempotency-Key"] = asked.key
    return Answer(status, as_stripe_writes(thing), headers)
