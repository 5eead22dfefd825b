"""What the documents show is run: a session that stops being true fails here."""

import os
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

import meterbook
from meterbook import errors

if TYPE_CHECKING:
    from meterbook.book import Book

_LINKS = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
_TIMES = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")
_CONSOLE = re.compile(r"```console\n(\$ meterbook .*?)```", re.DOTALL)
_EXECUTED_PYTHON = re.compile(r"<!-- executed by tests/test_documents\.py -->\n```python\n(.*?)```", re.DOTALL)


def sessions(text: str) -> list[tuple[str, str]]:
    """Commands with the output that the document shows for each."""
    shown = "".join(_CONSOLE.findall(text))
    parts = re.split(r"^\$ ", shown, flags=re.MULTILINE)[1:]
    return [(command, output.strip()) for command, _, output in (part.partition("\n") for part in parts)]


def run(command: str, home: Path) -> str:
    """What a person sees, both streams."""
    arguments = [sys.executable, "-m", "meterbook.cli", *shlex.split(command)[1:]]
    environment = os.environ | {"METERBOOK_HOME": str(home), "NO_COLOR": "1", "COLUMNS": "100"}
    environment.pop("METERBOOK_URL", None)
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, env=environment, cwd=home.parent)
    lines = (done.stdout + done.stderr).strip().splitlines()
    return "\n".join(line.rstrip() for line in lines)


def test_the_readmes_session_is_what_happens(root: Path, tmp_path: Path) -> None:
    """Each command of the README's session prints what the README shows, times aside."""
    shown = sessions((root / "README.md").read_text())
    assert len(shown) >= 5
    for command, output in shown:
        assert _TIMES.sub("TIME", run(command, tmp_path / "home")) == _TIMES.sub("TIME", output), command


def test_the_readme_comes_to_the_point(root: Path) -> None:
    """One sentence, the two commands and a session stand in its first sixty lines."""
    beginning = "\n".join((root / "README.md").read_text().splitlines()[:60])
    for wanted in ("make run", "make test", "$ meterbook record", "## What it guarantees"):
        assert wanted in beginning


def test_links_in_the_documents_lead_somewhere(root: Path) -> None:
    """No relative link of a document is dead."""
    documents = [root / "README.md", root / "CONTRIBUTING.md", *(root / "docs").rglob("*.md")]
    links = [(document, target) for document in documents for target in _LINKS.findall(document.read_text())]
    assert [(str(document), target) for document, target in links if not (document.parent / target).exists()] == []


async def test_pythons_example_of_an_own_transaction_runs(root: Path, book: "Book", database_url: str) -> None:
    """The example of docs/reference/python.md records, in the caller's transaction, what it says."""
    (example,) = _EXECUTED_PYTHON.findall((root / "docs/reference/python.md").read_text())
    names: dict[str, object] = {"psycopg": psycopg, "book": book, "url": database_url}
    exec(f"async def example():\n{textwrap.indent(example, '    ')}", names)
    await names["example"]()  # type: ignore[operator]
    assert str((await book.usage("user:user_42")).total) == "0.0123"
    async with await psycopg.AsyncConnection.connect(database_url) as conn:
        row = await (await conn.execute("select text from answer")).fetchone()
    assert row == ("forty-two",)


@pytest.mark.parametrize(
    "name", ["start/first-ledger.md", "guides/importing.md", "reference/sql.md", "internals/rules.md"]
)
def test_the_documents_that_the_readme_promises_are_there(root: Path, name: str) -> None:
    """A newcomer's path has no hole."""
    assert (root / "docs" / name).stat().st_size > 500


def test_every_promised_call_is_in_the_reference(root: Path) -> None:
    """Whoever calls the Book from Python finds each of its calls in docs/reference/python.md."""
    text = (root / "docs/reference/python.md").read_text()
    calls = [
        name for name in dir(meterbook.Book) if not name.startswith("_") and callable(getattr(meterbook.Book, name))
    ]
    assert [name for name in calls if not re.search(rf"`{name}[(`]", text)] == []


def test_every_error_is_in_the_reference(root: Path) -> None:
    """Each class that is raised, with its code, is in docs/reference/errors.md; those that only gather others needn't be."""
    text = (root / "docs/reference/errors.md").read_text()
    raised = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, errors.MeterbookError)]
    gathering = {errors.MeterbookError, errors.InvalidRequest, errors.Unavailable}
    assert [one.__name__ for one in raised if one not in gathering and f"`{one.__name__}`" not in text] == []
