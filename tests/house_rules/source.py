"""Reading the repository for the house rules."""

import ast
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGE = ROOT / "src" / "meterbook"
TWIN = PACKAGE / "sync"
CODE = ("src", "tests", "tools", "benchmarks", "examples")


@dataclass(frozen=True, slots=True)
class Module:
    path: Path
    tree: ast.Module

    @property
    def name(self) -> str:
        return str(self.path.relative_to(ROOT))


@cache
def modules(*folders: str) -> tuple[Module, ...]:
    """Parsed modules below these folders of the repository, the generated twin left out."""
    files = (file for folder in folders for file in sorted((ROOT / folder).rglob("*.py")))
    return tuple(_parsed(file) for file in files if TWIN not in file.parents)


@cache
def _parsed(file: Path) -> Module:
    return Module(file, ast.parse(file.read_text()))


def where(module: Module, node: ast.AST) -> str:
    return f"{module.name}:{getattr(node, 'lineno', 0)}"


def functions(module: Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(module.tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def docstrings(module: Module) -> set[int]:
    """The identities of the constants that are docstrings, also those of attributes."""
    return {
        id(node.value)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    }


@cache
def tracked_files() -> tuple[Path, ...]:
    """The files of the repository, or of an unpacked release."""
    if (ROOT / ".git").exists():
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
        return tuple(file for name in listed.split("\0") if name and (file := ROOT / name).is_file())
    hidden = {".venv", ".meterbook", ".git"}
    return tuple(file for file in ROOT.rglob("*") if file.is_file() and not hidden.intersection(file.parts))


def folders_with_files(top: str) -> set[Path]:
    """Every folder below `top`, itself included, in which the repository keeps a file."""
    start = ROOT / top
    files = [file for file in tracked_files() if start in file.parents]
    return {folder for file in files for folder in file.parents if folder == start or start in folder.parents}
