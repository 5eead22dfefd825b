"""Who sent a webhook: the signature on the raw body, by the official SDK."""

from collections.abc import Sequence

from meterbook.errors import BadSignature

BODY_BYTES_MAX = 1_000_000
"""Stripe's own events are below 256 kB."""
TOLERANCE_S = 300


def verify_signature(raw_body: bytes, signature: str, secrets: Sequence[str]) -> str:
    """Gives the body as text. Two secrets are live while one is replaced. Raises `BadSignature`."""
    from stripe import SignatureVerificationError, WebhookSignature

    if len(raw_body) > BODY_BYTES_MAX:
        raise BadSignature(f"a body of {len(raw_body)} bytes is no event: they have at most {BODY_BYTES_MAX}")
    if not secrets:
        raise BadSignature("no webhook secret is known here: set METERBOOK_STRIPE_WEBHOOK_SECRETS")
    if not signature.isascii():
        raise BadSignature("the signature is not Stripe's: it is not ASCII")
    try:
        body = raw_body.decode()
    except UnicodeDecodeError as error:
        raise BadSignature("the body is no UTF-8") from error
    said = ""
    for secret in secrets:
        try:
            WebhookSignature.verify_header(body, signature, secret, TOLERANCE_S)
        except SignatureVerificationError as error:
            said = str(error.user_message or error)
        else:
            return body
    raise BadSignature(f"the signature is not Stripe's: {said}")
