"""Which library a caller's connection belongs to, by the names of its classes: none is imported to find out."""

from typing import Literal

from meterbook.errors import UnsuitableConnection

Library = Literal["sqlalchemy", "django"]
LIBRARIES: tuple[Library, ...] = ("sqlalchemy", "django")
_OTHER_DRIVERS = {
    "asyncpg": "postgresql+psycopg://",
    "psycopg2": "postgresql+psycopg://, or Django with psycopg instead of psycopg2",
    "pg8000": "postgresql+psycopg://",
}


def library_of(conn: object) -> Library | None:
    """None: psycopg's, or nothing that is known here. Subclasses and Django's proxies count as what they stand for."""
    homes = {kind.__module__.partition(".")[0] for kind in type(conn).__mro__}
    return next((library for library in LIBRARIES if library in homes), None)


def unsuitable(found: object, wanted: str) -> UnsuitableConnection:
    """What was found where a connection of psycopg is needed, and what to use."""
    home, name = type(found).__module__.partition(".")[0], type(found).__qualname__
    instead = _OTHER_DRIVERS.get(home)
    advice = f"; the ledger records through psycopg 3: connect by {instead}" if instead else ""
    return UnsuitableConnection(f"conn: {home}'s {name} is not {wanted}{advice}")
