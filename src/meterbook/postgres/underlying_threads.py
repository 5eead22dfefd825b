"""The psycopg connection beneath what a synchronous application has, in its running transaction. Its twin is underlying_asyncio."""

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from psycopg import Connection

from meterbook.errors import LedgerUnavailable, UnsuitableConnection
from meterbook.postgres.underlying import library_of, unsuitable

if TYPE_CHECKING:
    import sqlalchemy as sa
    from sqlalchemy import orm

    CallersConnection: TypeAlias = (
        Connection[Any] | sa.Connection | orm.Session | orm.scoped_session[Any] | "DjangoConnection"
    )
else:
    CallersConnection = Connection


class DjangoConnection(Protocol):
    """What is needed of `django.db.connection`, and of one of `django.db.connections`."""

    vendor: Any
    connection: Any

    def ensure_connection(self) -> Any: ...

    def validate_thread_sharing(self) -> Any: ...

    def validate_no_broken_transaction(self) -> Any: ...


WANTED = "an open psycopg.Connection, nor SQLAlchemy's Connection or Session, nor Django's (an asynchronous one is for meterbook.open)"


def psycopg_connection(conn: Any) -> Connection[Any]:
    """Raises `UnsuitableConnection`, which says what to use; `LedgerUnavailable` if SQLAlchemy or Django has none and gets none."""
    match library_of(conn):
        case "sqlalchemy":
            found = _beneath_sqlalchemy(conn)
        case "django":
            found = _beneath_django(conn)
        case _:
            found = conn
    if not isinstance(found, Connection):
        raise unsuitable(found, WANTED)
    return found


def _beneath_sqlalchemy(conn: object) -> object:
    """SQLAlchemy commits what it knows to have begun: without that, its commit would do nothing and the pool would roll back."""
    from sqlalchemy import Connection as SqlConnection
    from sqlalchemy.exc import OperationalError, SQLAlchemyError
    from sqlalchemy.exc import TimeoutError as NoneFree
    from sqlalchemy.orm import Session, scoped_session

    try:
        inner = conn.connection() if isinstance(conn, Session | scoped_session) else conn
        if not isinstance(inner, SqlConnection):
            raise unsuitable(inner, WANTED)
        if not inner.in_transaction():
            inner.begin()
        return inner.connection.driver_connection
    except (OperationalError, NoneFree) as error:
        raise LedgerUnavailable(f"SQLAlchemy gets no connection: {error}") from error
    except SQLAlchemyError as error:
        raise UnsuitableConnection(f"conn: SQLAlchemy gives no connection: {error}") from error


def _beneath_django(conn: DjangoConnection) -> object:
    """What Django itself looks at before a statement. Outside `atomic` the connection is in autocommit, and what is recorded commits."""
    from django.db import Error

    if getattr(conn, "vendor", "") != "postgresql":
        raise UnsuitableConnection("conn: this connection of Django's is not one to PostgreSQL")
    try:
        conn.validate_thread_sharing()
        conn.validate_no_broken_transaction()
    except Error as error:
        raise UnsuitableConnection(f"conn: Django gives no connection: {error}") from error
    try:
        conn.ensure_connection()
    except Error as error:
        raise LedgerUnavailable(f"Django gets no connection: {error}") from error
    found: object = conn.connection
    return found
