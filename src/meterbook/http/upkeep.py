"""Routes for what surrounds a server: Stripe's webhooks, health, readiness, metrics, the OpenAPI document."""

from typing import Any

from litestar import Request, Response, get, post

from meterbook.errors import MeterbookError
from meterbook.http.door import OPEN, GivenDoor
from meterbook.http.metrics import CONTENT_TYPE
from meterbook.http.problems import ShuttingDown
from meterbook.http.wire import AppliedOut, HealthOut, out
from meterbook.stripe.events import WEBHOOK_PATH

Read = Request[Any, Any, Any]


@post(WEBHOOK_PATH, opt={"scope": OPEN, "raw": True}, status_code=200)
async def stripe_webhook(request: Read, door: GivenDoor) -> AppliedOut:
    """Stripe's events, signed on the raw body; anything but 2xx makes Stripe send it again."""
    applied = await door.book.apply_stripe_event(await request.body(), request.headers.get("stripe-signature", ""))
    door.metrics.webhooks.labels(applied.state).inc()
    return out(AppliedOut, applied)


@get("/healthz", opt={"scope": OPEN})
async def healthz() -> HealthOut:
    """The process answers; it says nothing of the database."""
    return HealthOut("ok")


@get("/readyz", opt={"scope": OPEN})
async def readyz(door: GivenDoor) -> HealthOut:
    """The database answers, and this server is not going away."""
    if door.is_closing:
        raise ShuttingDown
    await door.book.answers()
    return HealthOut("ready")


@get("/metrics", opt={"scope": "metrics", "produces": "text/plain"}, media_type=CONTENT_TYPE)
async def metrics(door: GivenDoor) -> Response[bytes]:
    """Counters for Prometheus. Needs a key that may read, unless the server is told to serve them openly."""
    door.metrics.in_work.set(door.requests)
    try:
        gauges = await door.book.gauges()
    except MeterbookError:  # the counters are worth the more then
        gauges = None
    return Response(door.metrics.text(gauges), media_type=CONTENT_TYPE)


ROUTES = (stripe_webhook, healthz, readyz, metrics)
