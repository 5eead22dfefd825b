"""Results as JSON: amounts are strings, times are UTC with a Z, the names are those of the Python results."""

import dataclasses
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal

from meterbook.core.charges import unbilled_cents
from meterbook.core.derivation import amount_text
from meterbook.core.usage_report import UsageReport
from meterbook.errors import Denied, InvalidUsage, KeyConflict, MeterbookError

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


def as_json(value: object) -> Json:
    """Raises TypeError for what no result of a command holds."""
    match value:
        case None | bool() | int() | float() | str():
            found: Json = value
        case Decimal():
            found = amount_text(value)
        case datetime():
            found = time_text(value)
        case Mapping():
            found = {str(key): as_json(each) for key, each in value.items()}
        case tuple() if hasattr(value, "_asdict"):
            found = {name: as_json(each) for name, each in value._asdict().items()}
        case list() | tuple():
            found = [as_json(each) for each in value]
        case _ if dataclasses.is_dataclass(value):
            found = {each.name: as_json(getattr(value, each.name)) for each in dataclasses.fields(value)}
        case _:
            raise TypeError(f"no JSON for {type(value).__name__}")
    return found


def json_text(value: object) -> str:
    return json.dumps(as_json(value), ensure_ascii=False, indent=2)


def time_text(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def usage_data(report: UsageReport) -> dict[str, object]:
    """Everything that a report says, in lists and texts."""
    return {
        "entity": report.entity,
        "period": report.period,
        "count": report.count,
        "total": report.total,
        "baseline": report.baseline,
        "given_back": report.given_back,
        "refresh": report.refresh,
        "effective": report.effective,
        "included": report.included,
        "overage": report.overage,
        "limit": report.limit,
        "percent": report.percent,
        "status": report.status,
        "held": report.held,
        "charged_cents": report.charged_cents,
        "credits_cents": report.credits_cents,
        "billed_cents": report.billed_cents,
        "unbilled_cents": unbilled_cents(report),
        "by_actor": report.by_actor,
        "by_source": report.by_source,
        "by_description": [
            {"source": source, "description": description, "amount": amount}
            for (source, description), amount in report.by_description.items()
        ],
        "by_day": [{"day": day, "amount": amount} for day, amount in report.by_day.items()],
    }


def error_data(error: MeterbookError) -> dict[str, object]:
    facts: dict[str, object] = {"code": error.code, "message": str(error), "retryable": error.retryable}
    if isinstance(error, InvalidUsage):
        facts["problems"] = as_json(error.problems)
    if isinstance(error, KeyConflict):
        facts["conflicts"] = as_json(error.conflicts)
    if isinstance(error, Denied):
        facts["admission"] = as_json(error.admission)
    return facts
