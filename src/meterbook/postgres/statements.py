"""SQL lives in files: `-- name: …` begins a statement, the comment lines below it say what it is for."""

import re
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import LiteralString

_NAME = re.compile(r"^-- name: *(\w+) *$", re.MULTILINE)


def statements_beside(module: str) -> dict[str, LiteralString]:
    """The named statements of the `.sql` file beside a module; pass `__file__`."""
    path = Path(module)
    folder = path.parent.parent.parent / "postgres" if path.parent.parent.name == "sync" else path.parent
    parts = _NAME.split(read_trusted((folder / path.name).with_suffix(".sql")))
    return {name: text.strip() for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def read_trusted(file: Traversable) -> LiteralString:
    """A file that ships with the package: psycopg takes statements as literals only, so that no input can become one."""
    return file.read_text(encoding="utf-8")
