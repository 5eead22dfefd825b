"""Stripe's rules of idempotency keys (API v1).

https://docs.stripe.com/api/idempotent_requests and https://docs.stripe.com/error-low-level: the answer to the first request with a key is
kept, whatever it was, as soon as the call began to execute: 200, 402 or 500. Not kept: what was refused before that (parameters, the API
key, 409 and 429). Kept for 24 hours of the server's clock.
"""

from dataclasses import dataclass, field
from typing import Any

from tests.stripe_server.refusals import Refused

KEPT_S = 24 * 3_600
KEY_LENGTH_MAX = 255


@dataclass(frozen=True, slots=True)
class Answer:
    """`body` is JSON that has been written, so that a replay is the same to the byte."""

    status: int
    body: bytes
    headers: dict[str, str]


@dataclass(slots=True)
class _Call:
    """`answer` is None while it is being executed."""

    path: str
    params: dict[str, Any]
    began_at: int
    request_id: str
    answer: Answer | None = None


@dataclass
class Keys:
    _calls: dict[str, _Call] = field(default_factory=dict)

    def begin(self, key: str, path: str, params: dict[str, Any], now: int, request_id: str) -> Answer | None:
        """The answer that was given before, or None: the call is new, and to be finished."""
        if len(key) > KEY_LENGTH_MAX:
            raise Refused(400, "invalid_request_error", f"Idempotency keys may have up to {KEY_LENGTH_MAX} characters.")
        call = self._calls.get(key)
        if call is None or now - call.began_at >= KEPT_S:
            self._calls[key] = _Call(path, params, now, request_id)
            return None
        _check_same(key, call, path, params)
        if call.answer is None:
            message = f"There is currently another in-progress request using this Idempotent Key ({key})."
            raise Refused(409, "idempotency_error", message, code="idempotency_key_in_use")
        headers = {**call.answer.headers, "Idempotent-Replayed": "true", "Original-Request": call.request_id}
        return Answer(call.answer.status, call.answer.body, headers)

    def finish(self, key: str, answer: Answer) -> None:
        self._calls[key].answer = answer


def _check_same(key: str, call: _Call, path: str, params: dict[str, Any]) -> None:
    if call.path != path:
        raise Refused(
            400,
            "idempotency_error",
            f"Keys for idempotent requests can only be used for the same endpoint they were first used for ('{path}' vs "
            f"'{call.path}'). Try using a key other than '{key}' if you meant to execute a different request.",
        )
    if call.params != params:
        raise Refused(
            400,
            "idempotency_error",
            "Keys for idempotent requests can only be used with the same parameters they were first used with. "
            f"Try using a key other than '{key}' if you meant to execute a different request.",
        )
