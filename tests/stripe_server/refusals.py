"""Stripe's errors, as it answers them."""

from typing import Any

_REPEATED_BY_ITSELF = {"idempotency_key_in_use", "lock_timeout"}


class Refused(Exception):
    """An answer that is no success. `fields` go into the `error` object: code, param, decline_code, …"""

    def __init__(self, status: int, kind: str, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.status = status
        self.body: dict[str, Any] = {"error": {"type": kind, "message": message, **fields}}

    @property
    def code(self) -> str:
        return str(self.body["error"].get("code", ""))

    @property
    def may_be_repeated(self) -> bool:
        """What the header Stripe-Should-Retry says: a saved 500 would only be replayed, a lost race is won the next time."""
        return self.code in _REPEATED_BY_ITSELF


def invalid(message: str, *, code: str | None = None, param: str | None = None) -> Refused:
    fields = {"code": code, "param": param}
    return Refused(400, "invalid_request_error", message, **{name: value for name, value in fields.items() if value})


def missing(noun: str, thing_id: str, *, param: str = "id") -> Refused:
    return Refused(404, "invalid_request_error", f"No such {noun}: '{thing_id}'", code="resource_missing", param=param)


def required(param: str) -> Refused:
    return invalid(f"Missing required param: {param}.", code="parameter_missing", param=param)


def not_here(what: str) -> Refused:
    """Stripe could, this server can't: said aloud, so that no test passes because of it."""
    return Refused(501, "api_error", f"The Stripe of tests/stripe_server doesn't do this: {what}")


def declined(code: str, decline_code: str, **fields: Any) -> Refused:
    message = {"expired_card": "Your card has expired."}.get(code, "Your card was declined.")
    return Refused(402, "card_error", message, code=code, decline_code=decline_code, **fields)
