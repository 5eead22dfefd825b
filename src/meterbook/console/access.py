"""Keys and the log of administrative acts."""

from datetime import timedelta

from litestar import Response, get, post
from litestar.response import Redirect

from meterbook.console.asking import ROWS_PER_PAGE, number_of
from meterbook.console.desk import Asked, GivenDesk, read_form, visitor_of
from meterbook.console.rendering import address, page
from meterbook.core.api_keys import SCOPES

OPEN = {"scope": "open"}


@get("/keys", opt={**OPEN, "query": ("before",)})
async def keys(request: Asked, desk: GivenDesk) -> Response[str]:
    named = request.query_params.get("before")
    before = None if not named else number_of(named, "before")
    acts = await desk.book.acts(limit=ROWS_PER_PAGE + 1, before=before)
    shown = acts[:ROWS_PER_PAGE]
    following = address("/keys", before=shown[-1].id) if len(acts) > ROWS_PER_PAGE else None
    found = await desk.book.keys()
    return page(request, desk, "keys.html", keys=found, acts=shown, next=following, scopes=SCOPES, now=desk.now())


@post("/keys", opt=OPEN, status_code=200)
async def make_key(request: Asked, desk: GivenDesk) -> Response[str]:
    """A new key; its text is on this one page, once."""
    form = await read_form(request)
    scopes = [scope for scope in SCOPES if form.get(f"scope_{scope}")]
    days = form.get("days", "")
    expires_at = None if not days else desk.now() + timedelta(days=min(number_of(days, "days"), 3650))
    by, name = visitor_of(request).by, form.get("name", "")
    request_id = str(request.scope["state"].get("request_id", ""))
    said = {"name": name, "scopes": scopes, "expires_at": None if expires_at is None else expires_at.isoformat()}
    async with desk.book.act(by, "make_key", name or "(no name)", said, request_id):
        made = await desk.book.make_key(name, scopes=scopes, by=by, expires_at=expires_at)
    return page(request, desk, "new_key.html", made=made)


@post("/keys/revoke", opt=OPEN, status_code=303)
async def revoke_key(request: Asked, desk: GivenDesk) -> Redirect:
    form = await read_form(request)
    key = number_of(form.get("id", ""), "id")
    request_id = str(request.scope["state"].get("request_id", ""))
    async with desk.book.act(visitor_of(request).by, "revoke_key", f"key {key}", {}, request_id):
        await desk.book.revoke_key(key)
    return Redirect(address("/keys"), status_code=303)


ROUTES = (keys, make_key, revoke_key)
