"""Who is there in the demo's month. All of it is made up."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

MONTH_START = datetime(2026, 5, 1, tzinfo=UTC)
MONTH_END = datetime(2026, 6, 1, tzinfo=UTC)
LAST_MOMENT = MONTH_END - timedelta(seconds=1)
CLOSED_AT = MONTH_END + timedelta(hours=1)
"""When the settlement grace has passed and the clock closes the month."""
NEXT_END = datetime(2026, 7, 1, tzinfo=UTC)
SERVED_AT = datetime(2026, 6, 11, 15, 30, tzinfo=UTC)
"""What time it is when the demo is served: in the month after, with some days of usage."""
FREE_LIMIT = Decimal("5.00")
SEED = 20_260_501


@dataclass(frozen=True, slots=True)
class Organization:
    name: str
    plan: str | None
    """None: no subscription, so that its members pay for themselves."""
    seats: int
    members: tuple[str, ...]
    """The first one owns it."""


@dataclass(frozen=True, slots=True)
class Model:
    name: str
    share: int
    """How often it is called, against the others."""
    prompt: int
    answer: int
    """Tokens of an ordinary call."""


@dataclass(frozen=True, slots=True)
class Credit:
    entity: str
    amount: str
    grant_id: str
    source: str
    priority: int
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Upgrade:
    at: datetime
    owner: str
    plan: str
    seats: int


ORGANIZATIONS = (
    Organization("acme", "team_6000", 8, ("ada", "alan", "amira", "anders", "anja", "arun", "astrid", "aziz")),
    Organization("globex", "team_6000", 5, ("bao", "bela", "bianca", "boris", "brita")),
    Organization(
        "initech", "enterprise", 9, ("carl", "carmen", "cem", "chiara", "chloe", "cyril", "dagny", "dario", "diana")
    ),
    Organization("hooli", "pro_6000", 1, ("ebba", "edgar", "elif", "emil")),
    Organization("umbrella", None, 0, ("farah", "felix", "fiona")),
)
SUBSCRIBERS = ("felix", "greta", "gus", "hana", "henrik")
"""People with a pro_6000 of their own."""
FREE = ("ida", "igor", "iris", "jan", "joana", "juri", "kaya")
LIMITS = {
    "organization:acme": "1000",
    "organization:globex": "400",
    "organization:initech": "2000",
    "organization:hooli": "150",
    "user:greta": "400",
}
"""What their owners, and an operator for the contract, have set; the others keep what their plan gives."""
CREDITS = (
    Credit("organization:acme", "50.00", "welcome_acme", "promotion", 10, None),
    Credit("user:greta", "25.00", "purchase_greta", "purchase", 50, None),
    Credit("user:greta", "10.00", "spring_greta", "promotion", 10, datetime(2026, 5, 10, tzinfo=UTC)),
    Credit("organization:hooli", "20.00", "sorry_hooli", "goodwill", 20, datetime(2026, 6, 15, tzinfo=UTC)),
)
UPGRADES = (Upgrade(datetime(2026, 5, 25, 14, tzinfo=UTC), "user:greta", "pro_25000", 1),)
"""They help at once: the month's included usage rises, and nothing that was billed is given back."""
RUNNING_HOLD, RUNNING_HOLDER, RUNNING_HOLD_AMOUNT = "long_now", "ebba", "4.00"
"""A long run that has not ended when the demo is served."""
CAREFUL = ("ebba", "bao", "gus")
"""Their long runs set money aside before they begin."""
NEWCOMER, NEWCOMER_JOINS, NEWCOMER_JOINED_AT = "kaya", "acme", datetime(2026, 5, 12, 9, tzinfo=UTC)
"""Pays for herself until then; from then on the organization does."""

WORKSPACES = {"acme-support": "acme", "initech-legal": "initech", "globex-growth": "globex"}
"""Workspace → the organization that pays for what happens in it, whoever acts."""
FREELANCER, FREELANCER_WORKS_IN = "hana", "acme-support"
"""Has a subscription of her own, and works in a customer's workspace: the customer pays."""

MODELS = (
    Model("gpt-4o", 30, 2_700, 450),
    Model("gpt-4o-mini", 26, 2_100, 400),
    Model("claude-sonnet-4-5", 18, 7_200, 1_100),
    Model("claude-haiku-4-5", 12, 3_300, 600),
    Model("gemini-2.5-flash", 8, 4_500, 700),
    Model("gpt-5", 4, 5_400, 2_000),
    Model("o3", 2, 4_500, 2_500),
)
AGENTS = ("inbox-triage", "contract-review", "weekly-report", "lead-research", "code-review", "support-bot")

HOUR_WEIGHTS = (1, 1, 1, 1, 1, 2, 4, 8, 14, 18, 20, 18, 14, 17, 20, 19, 16, 12, 8, 6, 5, 4, 3, 2)
"""Of a day, midnight first, UTC."""
WEEKDAY_WEIGHTS = (10, 11, 11, 11, 9, 3, 2)
"""Of a week, Monday first."""


def unsubscribed() -> tuple[str, ...]:
    """Those who pay for themselves on the free plan."""
    return (
        *FREE,
        *(name for each in ORGANIZATIONS if each.plan is None for name in each.members if name not in SUBSCRIBERS),
    )


def people() -> tuple[str, ...]:
    """Everybody, in a fixed order."""
    members = [name for organization in ORGANIZATIONS for name in organization.members]
    alone = [name for name in (*SUBSCRIBERS, *FREE) if name not in members]
    return (*members, *alone)
