"""How the code reads. Each message says what to do instead; an exception goes into its rule's list, with a reason."""

import ast
import re
import sys
from pathlib import Path

from tests.house_rules.source import CODE, Module, docstrings, functions, modules, where

FUNCTION_LINES_MAX = 70
MONEY_ROOMS = ("src/meterbook/core", "src/meterbook/operations")
FORBIDDEN_NAMES = {
    "utils",
    "util",
    "common",
    "helpers",
    "helper",
    "manager",
    "service",
    "data",
    "base",
    "misc",
    "shared",
}
# Where a broad except is the edge of a process that logs and survives: module → why.
BROAD_EXCEPT: dict[str, str] = {
    "src/meterbook/book/group_commit_asyncio.py": "whatever a write raises belongs to its callers, who wait for it elsewhere",
    "src/meterbook/book/group_commit_threads.py": "whatever a write raises belongs to its callers, who wait for it elsewhere",
    "src/meterbook/integrations/litellm.py": "the application's call has its answer already; what fails is logged and given to on_error",
    "src/meterbook/book/lanes_asyncio.py": "whatever a group's work raises belongs to its callers, who wait for it elsewhere",
    "src/meterbook/client/waiting_threads.py": "whatever ends the sender's thread belongs to the client's next call, in another thread",
    "src/meterbook/book/lanes_threads.py": "whatever a group's work raises belongs to its callers, who wait for it elsewhere",
    "src/meterbook/http/lane.py": "stands where the framework's last handler stands: a fault is logged, and told by the request's id",
}
# SQL outside a .sql file: module → why.
SQL_IN_PYTHON: dict[str, str] = {}
_SQL = re.compile(
    r"\s*(select\s|insert\s+into\s|update\s+\S+\s+set\s|delete\s+from\s|with\s+\w+(\s*\([^)]*\))?\s+as\s*(not\s+)?(materialized\s*)?\(|"
    r"create\s+(table|index|function|schema)\s|alter\s+table\s|drop\s+table\s|truncate\s)",
    re.IGNORECASE,
)


def test_a_function_fits_a_screen() -> None:
    """70 lines at most; aim below 20. Push ifs up and fors down, and name the parts."""
    too_long = [
        f"{where(module, function)} {function.name}: {lines} lines"
        for module in modules(*CODE)
        for function in functions(module)
        if (lines := (function.end_lineno or 0) - function.lineno + 1) > FUNCTION_LINES_MAX
    ]
    assert too_long == []


def test_no_float_near_money() -> None:
    """Neither a literal nor the name `float` in the rooms that compute or move money: use Decimal, or a string."""
    found = [
        where(module, node)
        for module in modules(*MONEY_ROOMS)
        for node in ast.walk(module.tree)
        if _is_float(node) and not _is_refusal(module, node)
    ]
    assert found == []


def _is_float(node: ast.AST) -> bool:
    match node:
        case ast.Constant(value=value):
            return isinstance(value, float)
        case ast.Name(id="float"):
            return True
        case _:
            return False


def _is_refusal(module: Module, node: ast.AST) -> bool:
    """A float may be named to be refused, as in `isinstance(amount, float)`; never to be computed with."""
    tests = [each for each in ast.walk(module.tree) if isinstance(each, ast.Call) and _calls(each, "isinstance")]
    return any(node in ast.walk(test) for test in tests)


def _calls(call: ast.Call, name: str) -> bool:
    return isinstance(call.func, ast.Name) and call.func.id == name


def test_no_broad_except() -> None:
    """Catch what you can answer. Only the edge of a process may catch everything, to log it and go on."""
    found = [
        where(module, node)
        for module in modules("src", "tools", "benchmarks")
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ExceptHandler) and _is_broad(node) and module.name not in BROAD_EXCEPT
    ]
    assert found == []


def _is_broad(handler: ast.ExceptHandler) -> bool:
    """One that catches everything and keeps it: undoing something before raising it again is no broad except."""
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    names = {name.id for name in caught if isinstance(name, ast.Name)}
    raises_again = isinstance(handler.body[-1], ast.Raise) and handler.body[-1].exc is None
    return (handler.type is None or bool(names & {"Exception", "BaseException"})) and not raises_again


def test_sql_lives_in_sql_files() -> None:
    """A string that is a statement belongs into the .sql file beside the module, with a name and a purpose."""
    found = [
        where(module, node)
        for module in modules("src")
        if module.name not in SQL_IN_PYTHON
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and _SQL.match(node.value)
        if id(node) not in docstrings(module)
    ]
    assert found == []


def test_each_exception_to_a_rule_is_needed_and_has_a_reason() -> None:
    """A list of exceptions holds no module that is gone, and no empty reason."""
    names = {module.name for module in modules(*CODE)}
    for exceptions in (BROAD_EXCEPT, SQL_IN_PYTHON):
        assert exceptions.keys() <= names
        assert all(len(reason) > 20 for reason in exceptions.values())


def test_a_module_is_named_for_what_it_holds() -> None:
    """Names that fit everything say nothing."""
    found = [module.name for module in modules(*CODE) if FORBIDDEN_NAMES & set(Path(module.name).with_suffix("").parts)]
    assert found == []


def test_the_core_imports_nothing_but_the_standard_library() -> None:
    """And itself, and the errors: no clock, no database, no framework can get in."""
    found = [
        f"{where(module, node)} imports {name}"
        for module in modules("src/meterbook/core")
        for node in ast.walk(module.tree)
        for name in _imports(node)
        if not _is_pure(name)
    ]
    assert found == []


def _imports(node: ast.AST) -> list[str]:
    match node:
        case ast.Import(names=names):
            return [alias.name for alias in names]
        case ast.ImportFrom(module="meterbook", names=names):
            return [f"meterbook.{alias.name}" for alias in names]
        case ast.ImportFrom(module=str(name)):
            return [name]
        case _:
            return []


def _is_pure(name: str) -> bool:
    top = name.split(".", maxsplit=1)[0]
    ours = name in {"meterbook.errors", "meterbook.core"} or name.startswith("meterbook.core.")
    impure = {"os", "time", "random", "secrets", "logging", "socket", "subprocess", "asyncio", "threading"}
    return ours or (top in sys.stdlib_module_names and top not in impure)


def test_the_core_asks_nobody_for_the_time() -> None:
    """Pass `now`; a call of now(), today() or uuid4() makes a figure depend on when it is computed."""
    forbidden = {"now", "utcnow", "today", "uuid1", "uuid4", "open", "getenv"}
    found = [
        where(module, node)
        for module in modules("src/meterbook/core")
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and _called(node) in forbidden
    ]
    assert found == []


def _called(call: ast.Call) -> str:
    match call.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case _:
            return ""
