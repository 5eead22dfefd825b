"""Who may open what: sessions, forms, customers' links; and what a page may load."""

import re
from datetime import timedelta
from typing import Any

import httpx
import pytest
from litestar.handlers import HTTPRouteHandler

from meterbook import Book
from meterbook.console.app import console_routes
from meterbook.console.desk import COOKIE
from meterbook.http.app import make_inner_app
from meterbook.http.door import OPEN, Door
from meterbook.settings import Settings
from tests.conftest import Clock
from tests.console.conftest import Console, form_of

OPEN_PAGES = {
    "GET /console/login",
    "POST /console/login",
    "POST /console/theme",
    "GET /console/static/{name}",
    "GET /console/customer/{link}",
    "GET /console/customer/{link}/entries.csv",
}
PAGES = ["/console", "/console/billing", "/console/problems", "/console/keys", "/console/find?q=a"]


def handlers_of(console: Console) -> dict[str, HTTPRouteHandler]:
    app = make_inner_app(Door(console.book, Settings()), [console_routes(console.desk)])
    return {
        f"{method} {re.sub(r':[a-z]+}', '}', path)}": handler
        for route in app.routes
        for handler in getattr(route, "route_handlers", ())
        if isinstance(handler, HTTPRouteHandler)
        for path in [route.path_format if hasattr(route, "path_format") else route.path]
        for method in handler.http_methods
        if path.startswith("/console") and method in {"GET", "POST"}
    }


async def test_every_page_asks_for_a_session_but_these(console: Console) -> None:
    """Whoever adds a page adds it behind the login, or here. None asks the API's door for a key."""
    person, found = console.person(), handlers_of(console)
    assert found.keys() >= OPEN_PAGES
    for name, handler in found.items():
        assert handler.opt["scope"] == OPEN
        method, path = name.split()
        if name in OPEN_PAGES:
            continue
        answer = await person.request(method, path.replace("{path}", "x"))
        assert answer.status_code == 303, name
        assert answer.headers["location"].startswith("/console/login")


@pytest.mark.parametrize("scopes", [["record"], ["read"], ["record", "read"]])
async def test_only_an_admin_key_opens_the_console(console: Console, scopes: list[str]) -> None:
    """Another key is told so, and gets no session."""
    made = await console.book.make_key("other", scopes=scopes, by="the tests")
    answer = await console.person().post("/console/login", data={"key": made.text, "next": ""})
    assert (answer.status_code, COOKIE in answer.cookies) == (403, False)


@pytest.mark.parametrize("key", ["", "mb_000000000000_" + "0" * 64, "nonsense"])
async def test_a_wrong_key_opens_nothing(console: Console, key: str) -> None:
    """And the page doesn't say what was wrong with it, nor the key itself."""
    answer = await console.person().post("/console/login", data={"key": key, "next": ""})
    assert (answer.status_code, COOKIE in answer.cookies) == (401, False)
    assert not key or key not in answer.text


async def test_the_cookie_is_for_the_server_alone(console: Console) -> None:
    """HttpOnly, SameSite, and Secure everywhere but on this machine itself; the key is not in it."""
    made = await console.book.make_key("ops", scopes=["admin"], by="the tests")
    for base, secure in (("http://localhost", False), ("https://meter.example.com", True), ("http://10.0.0.7", True)):
        answer = await console.person(base).post("/console/login", data={"key": made.text, "next": "/console"})
        (cookie,) = answer.headers.get_list("set-cookie")
        assert "HttpOnly" in cookie
        assert "SameSite=lax" in cookie
        assert "Path=/console" in cookie
        assert ("Secure" in cookie) is secure
        assert made.text.rpartition("_")[2] not in cookie


async def test_a_revoked_key_ends_its_sessions(console: Console, operator: httpx.AsyncClient) -> None:
    """With the next page, not with the session's end."""
    assert (await operator.get("/console/keys")).status_code == 200
    (key,) = await console.book.keys()
    await console.book.revoke_key(key.id)
    assert (await operator.get("/console/keys")).status_code == 303


async def test_a_session_ends_in_time(console: Console, operator: httpx.AsyncClient) -> None:
    """And says so to htmx, which would show the login page inside of the page otherwise."""
    console.seconds[0] = console.desk.settings.session_s
    assert (await operator.get("/console/keys")).status_code == 303
    assert (await operator.get("/console/keys", headers={"HX-Request": "true"})).headers[
        "hx-redirect"
    ] == "/console/login"


async def test_a_session_can_not_be_made_up(console: Console, operator: httpx.AsyncClient) -> None:
    """Neither by changing one, nor by passing a customer's link off as one, nor by one that another server signed."""
    session = operator.cookies[COOKIE]
    link = console.desk.link("user:ada", console.desk.now() + timedelta(days=1))
    other = type(console.desk)(console.book, Settings(console_secret="t" * 32))  # type: ignore[arg-type]
    (key,) = await console.book.keys()
    body, mark = session.split(".")
    for made_up in (
        f"{body}x.{mark}",
        f"{body}.{mark[::-1]}",
        body,
        link,
        other.link(key.prefix, console.desk.now()),
        ".",
    ):
        answer = await console.person().get("/console", headers={"Cookie": f"{COOKIE}={made_up}"})
        assert answer.status_code == 303, made_up


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/console/keys", {"name": "x", "scope_admin": "1"}),
        ("/console/keys/revoke", {"id": "1"}),
        ("/console/links", {"entity": "user:ada", "days": "1"}),
        ("/console/problems/redrive", {"id": "1"}),
        ("/console/logout", {}),
    ],
)
async def test_a_form_of_another_page_changes_nothing(
    console: Console, operator: httpx.AsyncClient, path: str, fields: dict[str, str]
) -> None:
    """Without the session's own token, or with another session's, nothing is done and nothing is noted."""
    another = await form_of(await console.operator())
    for token in ({}, {"csrf": ""}, {"csrf": another}):
        assert (await operator.post(path, data=fields | token)).status_code == 403
    assert await console.book.acts() == []
    assert [key.name for key in await console.book.keys()] == ["ops", "ops"]


async def test_another_site_can_not_sign_anybody_in(console: Console) -> None:
    """A browser says where a form comes from; one of elsewhere is refused before the key is looked at."""
    made = await console.book.make_key("ops", scopes=["admin"], by="the tests")
    headers = {"Sec-Fetch-Site": "cross-site"}
    answer = await console.person().post("/console/login", data={"key": made.text}, headers=headers)
    assert (answer.status_code, COOKIE in answer.cookies) == (403, False)


@pytest.mark.parametrize(
    "wanted", ["https://evil.example", "//evil.example", "/console/../x//evil", "/consolex", "/console/\\evil"]
)
async def test_the_login_goes_on_to_our_pages_only(console: Console, wanted: str) -> None:
    """Whatever a link to the login names."""
    made = await console.book.make_key("ops", scopes=["admin"], by="the tests")
    answer = await console.person().post("/console/login", data={"key": made.text, "next": wanted})
    assert answer.headers["location"] == "/console"


async def test_a_page_loads_nothing_of_another_host_and_runs_nothing_inline(
    console: Console, operator: httpx.AsyncClient
) -> None:
    """By its policy and by its text; and every file that it names is there."""
    await console.book.record("ada", source="workflow", description="gpt-4o", amount="1.5", event_key="k")
    for path in [*PAGES, "/console/entity?entity=user:ada", "/console/explain?entity=user:ada", "/console/nowhere"]:
        answer = await operator.get(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert re.findall(r'(?:src|href|action)="(https?:)?//', answer.text) == []
        assert re.findall(r"<script>|<script [^>]*>[^<]|<style| style=| on[a-z]+=|javascript:", answer.text) == []
        for file in re.findall(r'(?:src|href)="(/console/static/[^"]+)"', answer.text):
            loaded = await operator.get(file)
            assert (loaded.status_code, loaded.headers["cache-control"]) == (200, "public, max-age=31536000, immutable")


@pytest.mark.parametrize("name", ["../app.py", "README.md", "nothing.css", "..%2fapp.py"])
async def test_no_other_file_is_served(console: Console, name: str) -> None:
    """Only what pages load."""
    assert (await console.person().get(f"/console/static/{name}")).status_code in {303, 404}


async def test_what_a_customer_said_is_only_text(console: Console, operator: httpx.AsyncClient) -> None:
    """Names, descriptions and reasons are escaped wherever they are shown."""
    bad = "<script>alert(1)</script>\"'"
    await console.book.record(
        bad, source=bad, description=bad, amount="1.5", event_key="k", metadata={bad: bad}, workflow=bad
    )
    entity: dict[str, Any] = {"entity": f"user:{bad}"}
    for path in ("/console/entity", "/console/explain"):
        answer = await operator.get(path, params=entity)
        assert answer.status_code == 200
        assert "<script>alert" not in answer.text
    assert "<script>alert" not in (await operator.get("/console")).text


# ---------------------------------------------------------------------------------------------------------- customers' links


async def link_to(console: Console, entity: str, days: int = 7) -> str:
    return f"/console/customer/{console.desk.link(entity, console.desk.now() + timedelta(days=days))}"


async def test_a_customers_link_shows_that_customer_only(console: Console, book: Book) -> None:
    """No parameter leads to somebody else, no other page opens, and nobody else's name is on it."""
    await book.record("ada", source="workflow", description="gpt-4o", amount="1.5", event_key="a")
    await book.record("bob", source="copilot", description="o3", amount="2.25", event_key="b")
    other = (await book.usage("user:bob")).period.id
    link, person = await link_to(console, "user:ada"), console.person()
    page = await person.get(link)
    assert page.status_code == 200
    assert "1.50" in page.text
    for text in (
        page.text,
        (await person.get(f"{link}/entries.csv")).text,
        (await person.get(f"{link}?actor=bob")).text,
    ):
        assert "2.25" not in text
        assert "o3" not in text
    assert (await person.get(f"{link}?period={other}")).status_code == 404
    assert (await person.get(f"{link}?entity=user:bob")).status_code == 400
    assert (await person.get("/console/entity?entity=user:ada")).status_code == 303


async def test_a_link_ends_in_time_and_can_not_be_made_up(console: Console, book: Book) -> None:
    """Expired, changed, cut off or made from a session: the same page, which says to ask for a new one."""
    await book.record("ada", source="workflow", description="gpt-4o", amount="1.5", event_key="a")
    operator = await console.operator()
    link, person = await link_to(console, "user:ada", days=1), console.person()
    for bad in (
        link[:-1],
        link.replace(".", "x."),
        f"/console/customer/{operator.cookies[COOKIE]}",
        "/console/customer/x",
    ):
        assert (await person.get(bad)).status_code == 410, bad
    console.seconds[0] = 86_399
    assert (await person.get(link)).status_code == 200
    console.seconds[0] = 86_400
    assert (await person.get(link)).status_code == 410


async def test_only_origins_that_were_named_may_frame_a_customers_page(console: Console, book: Book) -> None:
    """And no other page, by anybody."""
    await book.record("ada", source="workflow", description="gpt-4o", amount="1.5", event_key="a")
    answer = await console.person().get(await link_to(console, "user:ada"))
    assert answer.headers["content-security-policy"].endswith("frame-ancestors https://app.example.com")
    login = await console.person().get("/console/login")
    assert login.headers["content-security-policy"].endswith("frame-ancestors 'none'")
    assert login.headers["x-frame-options"] == "DENY"


async def test_making_a_link_is_noted(console: Console, operator: httpx.AsyncClient, book: Book, clock: Clock) -> None:
    """Whose key, for whom, until when; the link itself is not in the log."""
    await book.record("ada", source="workflow", description="gpt-4o", amount="1.5", event_key="a")
    said = {"csrf": await form_of(operator), "entity": "user:ada", "days": "3"}
    page = await operator.post("/console/links", data=said)
    (address,) = re.findall(r">(http://localhost/console/customer/[^<]+)</textarea>", page.text)
    assert (await console.person().get(address)).status_code == 200
    (act,) = await book.acts()
    assert (act.act, act.subject, act.outcome, act.by_whom.endswith("console")) == (
        "make_customer_link", "user:ada", "done", True,
    )  # fmt: skip
    assert address.rpartition("/")[2] not in str(act)
    assert clock.now.year == 2026
