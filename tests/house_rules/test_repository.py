"""What lies in the repository, and that a newcomer finds the way."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

from tests.house_rules.source import PACKAGE, ROOT, TWIN, folders_with_files, tracked_files

DECISIONS = ROOT / "docs" / "decisions"
DECISION_LINES_MAX = 60
DECISION_PARTS = ["Context", "Decision", "Consequences", "Alternatives"]
# Where a program looks by the conventions of the operating system: file → why.
SYSTEM_PATHS = {
    "src/meterbook/postgres/embedded/place.py": "the shelter for data whose folder is closed to the server's user",
    "src/meterbook/postgres/embedded/binaries.py": "where distributions put PostgreSQL's programs",
}
_MACHINE = re.compile(
    r"(?<![\w.])/(home|root|Users|work|tmp|opt|mnt)/\w|\bfile://|--(extra-)?index-url|--find-links|(?<!emit-)trusted-host"
)
_ROOM_README = ("tests", "benchmarks", "docs", "tools", "examples")


def test_each_folder_says_what_lives_in_it() -> None:
    """A README.md of a few lines, or for a Python package its docstring: what, what it may import, where to start."""
    rooms = {folder for top in _ROOM_README for folder in folders_with_files(top)}
    rooms |= {folder for folder in folders_with_files("src/meterbook") if folder != TWIN and TWIN not in folder.parents}
    silent = [str(folder.relative_to(ROOT)) for folder in rooms if not (folder / "README.md").exists()]
    assert sorted(name for name in silent if not _package_docstring(name)) == []


def _package_docstring(name: str) -> str:
    file = ROOT / name / "__init__.py"
    return ast.get_docstring(ast.parse(file.read_text())) or "" if file.exists() else ""


@pytest.mark.parametrize("file", sorted(DECISIONS.glob("[0-9]*.md")), ids=lambda file: file.stem)
def test_a_decision_is_one_screen_and_complete(file: Path) -> None:
    """Context, Decision, Consequences, Alternatives, in this order, in at most 60 lines."""
    text = file.read_text()
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == DECISION_PARTS
    assert len(text.splitlines()) <= DECISION_LINES_MAX


def test_decisions_are_numbered_once() -> None:
    """A number names one decision for good; the title repeats it."""
    files = sorted(DECISIONS.glob("[0-9]*.md"))
    numbers = [file.name.split("-")[0] for file in files]
    assert len(numbers) == len(set(numbers))
    assert [number for number, file in zip(numbers, files, strict=True) if f"# {number} " not in file.read_text()] == []


def test_the_changelog_knows_the_version() -> None:
    """The newest section is pyproject's version, and the package says the same."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    sections = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert sections[0] == version


def test_nothing_of_one_machine_is_in_the_repository() -> None:
    """No home folder, no scratch folder, no package index: a clone works elsewhere."""
    found = []
    for file in tracked_files():
        name = str(file.relative_to(ROOT))
        if name in SYSTEM_PATHS or file.is_relative_to(ROOT / "tests" / "house_rules") or _is_binary(file.read_bytes()):
            continue
        lines = enumerate(file.read_text().splitlines(), start=1)
        found += [f"{name}:{number}: {line.strip()[:80]}" for number, line in lines if _MACHINE.search(line)]
    assert found == []


def _is_binary(content: bytes) -> bool:
    return b"\0" in content[:8192]


def test_the_package_ships_its_types_and_its_sql() -> None:
    """py.typed is there; what is not Python lies inside the package, so that the wheel has it."""
    assert (PACKAGE / "py.typed").exists()
    outside = [
        file for file in tracked_files() if file.suffix == ".sql" and not _may_hold_sql(file.relative_to(ROOT).parts)
    ]
    assert outside == []


def _may_hold_sql(parts: tuple[str, ...]) -> bool:
    return parts[:2] == ("src", "meterbook") or parts[0] in _ROOM_README
