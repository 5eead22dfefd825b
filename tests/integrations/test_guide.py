"""The examples of docs/guides/in-your-application.md, executed in its order with the real libraries."""

import os
import re
import textwrap
import warnings
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.db import connection, connections

from meterbook import Book
from meterbook.sync import Book as SyncBook
from tests.integrations.callers import own_table
from tests.integrations.test_django import django_connection

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import litellm

_EXAMPLES = re.compile(r"<!-- executed by tests/integrations/test_guide\.py -->\n```python\n(.*?)```", re.DOTALL)
Example = Callable[[int], str]


@pytest.fixture
def example(root: Path) -> Example:
    shown = _EXAMPLES.findall((root / "docs/guides/in-your-application.md").read_text())
    assert len(shown) == 4
    return lambda number: str(shown[number])


async def run(text: str, **names: Any) -> dict[str, Any]:
    """The names that the example leaves."""
    body = textwrap.indent(text, "    ")
    exec(f"async def example():\n{body}\n    return dict(locals())", names)
    left: dict[str, Any] = await names["example"]()
    return left


async def total(book: Book) -> Decimal:
    return (await book.usage("user:user_42")).total


async def test_the_example_of_sqlalchemy_runs(book: Book, database_url: str, example: Example) -> None:
    """Committed with the session's work."""
    own_table(database_url)
    await run(example(0), book=book, url=database_url)
    assert await total(book) == Decimal("0.0123")


def test_the_example_of_django_runs(sync_book: SyncBook, database_url: str, example: Example) -> None:
    """Committed with `atomic`."""
    own_table(database_url)
    connections["default"] = django_connection(database_url)
    try:
        exec(example(1), {"sync_book": sync_book})
    finally:
        connection.close()
        del connections["default"]
    assert sync_book.usage("user:user_42").total == Decimal("0.0123")


async def test_the_example_of_fastapi_runs(book: Book, example: Example) -> None:
    """A request is held, answered and recorded; one beyond the limit is denied."""
    app = (await run(example(2), book=book))["app"]
    headers = {"authorization": "Bearer user_42"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app.test") as client:
        assert (await client.post("/answers", headers=headers)).json() == {"answer": "forty-two"}
        assert await total(book) == Decimal("0.0123")
        await book.record("user_42", source="s", description="d", amount="4.90", event_key="k")
        denied = await client.post("/answers", headers=headers)
    assert (denied.status_code, denied.json()["code"]) == (402, "denied")


@pytest.mark.filterwarnings("ignore")
async def test_the_example_of_litellm_runs(book: Book, example: Example) -> None:
    """One call, one entry, paid by the workspace's payer."""
    await book.put_workspace("w1", payer="user:user_42")
    try:
        await run(example(3), book=book)
    finally:
        litellm.logging_callback_manager._reset_all_callbacks()  # type: ignore[no-untyped-call]
    assert await total(book) > 0
