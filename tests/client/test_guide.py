"""What the documents say of the client is so."""

import inspect
import re
import textwrap
from pathlib import Path

import pytest

import meterbook
from meterbook.client import AsyncClient, Client
from meterbook.client.answers import Fault, judge
from tests.client.conftest import ON_ONE_SERVER, House

CODE = re.compile(r"<!-- executed by tests/client/test_guide\.py -->\n```python\n(.*?)```", re.DOTALL)
OF_THE_BOOK = (
    "check", "correct", "entries", "hold", "holds", "periods", "record", "record_cumulative", "record_many", "release",
    "resolve", "settle", "usage",
)  # fmt: skip


@ON_ONE_SERVER
async def test_the_guides_example_runs(
    house: House, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It records what it says, and leaves nothing waiting."""
    monkeypatch.chdir(tmp_path)
    (example,) = CODE.findall((root / "docs/guides/client.md").read_text())
    names: dict[str, object] = {"url": house.url, "key": house.key}
    exec(f"async def example():\n{textwrap.indent(example, '    ')}\n    return receipt, waits", names)
    receipt, waits = await names["example"]()  # type: ignore[operator]
    assert (receipt.state, waits.calls) == ("recorded", 0)
    assert [str(amount) for amount in house.amounts("user_42")][:2] == ["0.0123", "0.31"]
    assert len(house.amounts("user_42")) == 5


def calls(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def test_every_call_and_argument_is_in_the_reference(root: Path) -> None:
    """Whoever embeds the client finds each of them in docs/reference/client.md."""
    text = (root / "docs/reference/client.md").read_text()
    assert [name for name in calls(AsyncClient) if not re.search(rf"`{name}[(`]", text)] == []
    arguments = inspect.signature(AsyncClient).parameters
    assert [name for name in arguments if not re.search(rf"[`(,*] ?{name}[`,]", text)] == []


def test_both_clients_have_the_same_calls() -> None:
    """By the same names, with the same arguments."""
    assert calls(AsyncClient) == calls(Client)
    assert inspect.signature(AsyncClient) == inspect.signature(Client)
    for name in calls(AsyncClient):
        ours = inspect.signature(getattr(AsyncClient, name)).parameters
        assert list(ours) == list(inspect.signature(getattr(Client, name)).parameters)


@pytest.mark.parametrize("name", OF_THE_BOOK)
def test_a_call_takes_what_the_books_takes(name: str) -> None:
    """With the same defaults, so that a program may change from one to the other; only `conn` has no place here."""
    theirs = dict(inspect.signature(getattr(meterbook.Book, name)).parameters)
    ours = inspect.signature(getattr(AsyncClient, name)).parameters
    theirs.pop("conn", None)
    for each, parameter in theirs.items():
        assert each in ours
        assert ours[each].kind == parameter.kind
        if (name, each) != ("correct", "event_key"):  # made here, where the Book asks for one
            assert ours[each].default == parameter.default


@pytest.mark.parametrize(
    ("status", "code", "retryable", "fault"),
    [
        (400, "bad_body", False, Fault.BARRED),
        (400, "bad_query", False, Fault.BARRED),
        (401, "invalid_key", False, Fault.BARRED),
        (403, "scope_missing", False, Fault.FORBIDDEN),
        (404, "not_found", False, Fault.BARRED),
        (404, "unknown_hold", False, Fault.REFUSED),
        (405, "method_not_allowed", False, Fault.BARRED),
        (408, "too_slow", True, Fault.AWAY),
        (409, "key_conflict", False, Fault.REFUSED),
        (413, "body_too_large", False, Fault.TOO_LARGE),
        (415, "unsupported_media_type", False, Fault.BARRED),
        (422, "invalid_usage", False, Fault.REFUSED),
        (500, "internal_error", False, Fault.STUCK),
        (501, "not_permitted", False, Fault.FORBIDDEN),
        (503, "overloaded", True, Fault.AWAY),
        (503, "attribution_unavailable", True, Fault.STUCK),
        (503, "in_progress", True, Fault.STUCK),
        (503, "transaction_conflict", True, Fault.STUCK),
        (503, "ledger_unavailable", True, Fault.AWAY),
        (503, "shutting_down", True, Fault.AWAY),
    ],
)
def test_each_problem_is_somebodys(status: int, code: str, retryable: bool, fault: Fault) -> None:
    """Every code of docs/reference/http.md that a recording call may meet; only a refusal leaves the queue."""
    said = '{"type": "urn:meterbook:problem:%s", "code": "%s", "detail": "d", "retryable": %s}'
    body = said % (code, code, str(retryable).lower())
    assert judge(status, body.encode(), None, {}).fault is fault
    alien = body.replace("urn:meterbook", "https://example.com")
    assert judge(status, alien.encode(), None, {}).fault is Fault.AWAY
