"""What a test is: named for a rule, with the guarantee as its docstring, on the real thing, and asserting."""

import ast

from tests.house_rules.source import functions, modules, where

ASSERTING_CALLS = ("raises", "warns", "fail")


def all_tests() -> list[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    return [
        (where(module, function), function)
        for module in modules("tests")
        if module.path.name.startswith("test_")
        for function in functions(module)
        if function.name.startswith("test_")
    ]


def test_each_test_asserts_something() -> None:
    """An assert, a pytest.raises, or a call of a function whose name begins with assert_ or check_."""
    found = [place for place, function in all_tests() if not any(_asserts(node) for node in ast.walk(function))]
    assert found == []


def _asserts(node: ast.AST) -> bool:
    match node:
        case ast.Assert():
            return True
        case ast.Call(func=ast.Attribute(attr=name) | ast.Name(id=name)):
            return name in ASSERTING_CALLS or name.startswith(("assert_", "check_", "run_state_machine"))
        case _:
            return False


def test_each_test_states_its_guarantee() -> None:
    """The name is the rule; the docstring says what is guaranteed."""
    assert [place for place, function in all_tests() if not ast.get_docstring(function)] == []


def test_nothing_is_mocked() -> None:
    """The database is real, time is a parameter, and a fault is caused where it happens."""
    found = [where(module, node) for module in modules("tests") for node in ast.walk(module.tree) if _is_mock(node)]
    assert found == []


def _is_mock(node: ast.AST) -> bool:
    match node:
        case ast.Import(names=names):
            return any("mock" in alias.name for alias in names)
        case ast.ImportFrom(module=str(name), names=names):
            return "mock" in name or any("mock" in alias.name for alias in names)
        case ast.arg(arg=name):
            return name == "mocker"
        case _:
            return False
