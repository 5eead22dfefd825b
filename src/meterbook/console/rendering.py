"""Templates, and how figures and times are written: exact, never rounded."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import ROUND_DOWN, Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from litestar import Response
from markupsafe import Markup

from meterbook.console.desk import PREFIX, Asked, Desk
from meterbook.core.bill_derivation import money
from meterbook.core.derivation import amount_text
from meterbook.core.money import total_of

HTML = "text/html"
THEME_COOKIE = "meterbook_theme"
THEMES = ("auto", "light", "dark")
STATIC = Path(__file__).parent / "static"
CSP = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors {ancestors}"
)
CENT_PLACES = 2
FIGURE_SPACE = "\u2007"
_FILES = {
    name: f"{PREFIX}/static/{name}?v={sha256((STATIC / name).read_bytes()).hexdigest()[:12]}"
    for name in ("console.css", "console.js", "htmx-2.0.11.min.js", "icon.svg")
}


def places_of(amounts: Iterable[Decimal]) -> int:
    """The decimal places that a column needs so that its points align."""
    return max((len(amount_text(amount).partition(".")[2]) for amount in amounts), default=CENT_PLACES)


def exact(amount: Decimal, places: int = CENT_PLACES) -> Markup:
    """Every digit; what is below a cent is written quietly, and padded so that a column aligns at the point."""
    whole, _, fraction = amount_text(amount).partition(".")
    sign, digits = ("−", whole[1:]) if whole.startswith("-") else ("", whole)
    tail = fraction[CENT_PLACES:].ljust(places - CENT_PLACES, FIGURE_SPACE)
    head = f"{sign}{int(digits):,}.{fraction[:CENT_PLACES]}"
    return Markup('<span class="amount">{}<span class="tail">{}</span></span>').format(head, tail)


def cut(amount: Decimal) -> str:
    """At cents, cut and never rounded up: for sentences and axes, never for columns."""
    return f"{amount.quantize(Decimal('0.01'), rounding=ROUND_DOWN):,}"


def total(rows: Iterable[Any], place: int) -> Decimal:
    """The exact sum of one column."""
    return total_of(row[place] for row in rows)


def time(at: datetime | None) -> Markup:
    """UTC; a script writes the local time beside it."""
    if at is None:
        return Markup('<span class="none">—</span>')
    utc = at.astimezone(UTC)
    return Markup('<time datetime="{}">{} <small>UTC</small></time>').format(
        utc.isoformat(), f"{utc:%Y-%m-%d %H:%M:%S}"
    )


def day(at: datetime) -> str:
    utc = at.astimezone(UTC)
    return "lifetime" if utc.year in {1970, 9999} else f"{utc:%Y-%m-%d}"


def span(length: timedelta | None) -> str:
    """`4 s`, `12 min`, `3 h`, `2 d`: cut."""
    if length is None:
        return "none"
    seconds = max(0, int(length.total_seconds()))
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def address(path: str, **parameters: object) -> str:
    """Of a page of ours; what is None or empty is left out."""
    said = {name: value for name, value in parameters.items() if value not in {None, ""}}
    return f"{PREFIX}{path}{'?' + urlencode(said) if said else ''}"


def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("meterbook.console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "exact": exact,
        "cut": cut,
        "time": time,
        "plain": amount_text,
        "total": total,
        "day": day,
        "span": span,
        "cents": money,
    }
    made.globals |= {"address": address, "file": _FILES.__getitem__, "places_of": places_of, "themes": THEMES}
    return made


TEMPLATES = _environment()


def page(
    request: Asked, desk: Desk, template: str, *, status: int = 200, ancestors: str = "'none'", **facts: Any
) -> Response[str]:
    """A page with its policy: nothing but our own files is loaded, and nothing inline runs."""
    theme = request.cookies.get(THEME_COOKIE, "auto")
    visitor = request.scope["state"].get("visitor")
    text = TEMPLATES.get_template(template).render(
        facts,
        visitor=visitor,
        csrf="" if visitor is None else visitor.csrf,
        theme=theme if theme in THEMES else "auto",
        currency=desk.book.catalog.currency,
        is_demo=desk.book.is_demo,
        here=request.url.path + (f"?{request.url.query}" if request.url.query else ""),
        path=request.url.path,
    )
    headers = {"Content-Security-Policy": CSP.format(ancestors=ancestors), "Vary": "Cookie, HX-Request"}
    return Response(text, status_code=status, media_type=HTML, headers=headers)
