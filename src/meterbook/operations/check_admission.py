"""May this work begin? (BEHAVIOUR §8). One round trip; a check that failed is a denial."""

from datetime import datetime
from typing import Any

from psycopg import AsyncConnection

from meterbook.core.admission import Admission, AdmissionFacts, admit, check_failed
from meterbook.core.plans import Catalog
from meterbook.errors import AttributionUnavailable, MeterbookError, UnknownEntity
from meterbook.operations.attribute_usage import ATTEMPTS_MAX, Attribute, Parties
from meterbook.postgres import billing
from meterbook.postgres.facts import admission_facts_of


async def check_admission(
    conn: AsyncConnection[Any],
    actor: str,
    workspace: str | None,
    catalog: Catalog,
    attribute: Attribute,
    at: datetime | None,
) -> Admission:
    """Never raises for what it could not determine: it denies, and says that a retry may help."""
    try:
        return admit(await read_admission(conn, actor, workspace, catalog, attribute, at))
    except MeterbookError as error:
        return check_failed(str(error))


async def read_admission(
    conn: AsyncConnection[Any],
    actor: str,
    workspace: str | None,
    catalog: Catalog,
    attribute: Attribute,
    at: datetime | None,
) -> AdmissionFacts:
    """Raises `UnknownEntity` for a workspace that is not known, `AttributionUnavailable`, `UnknownPlan`."""
    for _ in range(ATTEMPTS_MAX):
        said = await billing.read_admission(conn, actor, workspace, at)
        if said["outcome"] == "unknown_workspace":
            raise UnknownEntity(f"workspace {workspace!r} is not known: call put_workspace first")
        if said["outcome"] == "resolved":
            return admission_facts_of(said, catalog)
        await attribute(Parties((actor,), (), () if workspace is None else (workspace,)))
    raise AttributionUnavailable
