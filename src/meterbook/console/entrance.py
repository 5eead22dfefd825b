"""Signing in and out, the look of pages, and the files that they load."""

from datetime import timedelta
from typing import Any

from litestar import Response, get, post
from litestar.datastructures import Cookie
from litestar.exceptions import NotFoundException
from litestar.params import FromPath
from litestar.response import Redirect

from meterbook.console.desk import COOKIE, PREFIX, Asked, GivenDesk, check_own_page, goes_in_the_clear, read_form
from meterbook.console.rendering import STATIC, THEME_COOKIE, THEMES, page
from meterbook.errors import InvalidKey, ScopeMissing

OPEN = {"scope": "open"}
MEDIA = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", ".txt": "text/plain"}  # fmt: skip
FILES = {file.name: file for file in STATIC.iterdir() if file.suffix in MEDIA}
FOREVER = "public, max-age=31536000, immutable"
THEME_KEPT = timedelta(days=365)


@get("/login", opt={**OPEN, "query": ("next",)})
async def login(request: Asked, desk: GivenDesk) -> Response[str]:
    return page(request, desk, "login.html", next=_own_page(request.query_params.get("next", "")), problem="")


@post("/login", opt=OPEN, status_code=303)
async def sign_in(request: Asked, desk: GivenDesk) -> Response[Any]:
    """A session for who shows an admin key. What was wrong with a key is not told."""
    check_own_page(request)
    form = await request.form()
    wanted = _own_page(str(form.get("next", "")))
    try:
        session = await desk.sign_in(str(form.get("key", "")).strip())
    except InvalidKey:
        return page(request, desk, "login.html", status=401, next=wanted, problem="This is no key that works here.")
    except ScopeMissing:
        said = "This key may not administer the ledger. The console needs one with the scope admin."
        return page(request, desk, "login.html", status=403, next=wanted, problem=said)
    answer = Redirect(wanted, status_code=303)
    answer.set_cookie(_cookie(request, COOKIE, session, timedelta(seconds=desk.settings.session_s)))
    return answer


@post("/logout", opt=OPEN, status_code=303)
async def sign_out(request: Asked) -> Response[Any]:
    await read_form(request)
    answer = Redirect(f"{PREFIX}/login", status_code=303)
    answer.set_cookie(_cookie(request, COOKIE, "", timedelta(0)))
    return answer


@post("/theme", opt=OPEN, status_code=303)
async def choose_theme(request: Asked) -> Response[Any]:
    """Light, dark, or what the system says; a matter of looks, so it needs no session."""
    check_own_page(request)
    form = await request.form()
    theme = str(form.get("theme", ""))
    answer = Redirect(_own_page(str(form.get("next", ""))), status_code=303)
    answer.set_cookie(_cookie(request, THEME_COOKIE, theme if theme in THEMES else "auto", THEME_KEPT))
    return answer


@get("/static/{name:str}", opt={**OPEN, "query": ("v",)}, sync_to_thread=False)
def static_file(name: FromPath[str]) -> Response[bytes]:
    """Ours, from the package; its address changes with its content."""
    if name not in FILES:
        raise NotFoundException
    file = FILES[name]
    return Response(file.read_bytes(), media_type=MEDIA[file.suffix], headers={"Cache-Control": FOREVER})


def _own_page(path: str) -> str:
    """Where to go on: only to a page of ours."""
    return path if path.startswith(f"{PREFIX}/") and "\\" not in path and "//" not in path else PREFIX


def _cookie(request: Asked, name: str, value: str, kept: timedelta) -> Cookie:
    return Cookie(
        key=name,
        value=value,
        path=PREFIX,
        max_age=int(kept.total_seconds()),
        httponly=True,
        samesite="lax",
        secure=not goes_in_the_clear(request),
    )


OPEN_ROUTES = (login, sign_in, choose_theme, static_file)
ROUTES = (sign_out,)
