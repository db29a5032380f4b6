"""What makes code hard to read: a long class, a long function, a name that means two things."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator

from tests.imports import read_sources
from tests.paths import ROOT

MOST_LINES_OF_A_CLASS = 250
MOST_LINES_OF_A_FUNCTION = 60
LONG_CLASSES = {"RateControl"}  # one decision, which parts would hide
KERNELS = {"kernel", "inlined"}  # a call of another kernel costs more than a line


def definitions() -> Iterator[tuple[str, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]]:
    for module, text in read_sources(ROOT).items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield module, node


def lines(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def is_kernel(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    decorators = (
        decorator.func if isinstance(decorator, ast.Call) else decorator for decorator in node.decorator_list
    )
    return any(isinstance(decorator, ast.Name) and decorator.id in KERNELS for decorator in decorators)


def test_no_class_is_long():
    classes = {node.name: lines(node) for _, node in definitions() if isinstance(node, ast.ClassDef)}
    long = {name for name, count in classes.items() if count > MOST_LINES_OF_A_CLASS}
    assert long <= LONG_CLASSES, {name: classes[name] for name in long}


def test_no_function_is_long():
    long = {
        f"{module}.{node.name}": lines(node)
        for module, node in definitions()
        if not isinstance(node, ast.ClassDef)
        and not is_kernel(node)
        and lines(node) > MOST_LINES_OF_A_FUNCTION
    }
    assert not long


def test_no_class_name_stands_twice():
    names = Counter(node.name for _, node in definitions() if isinstance(node, ast.ClassDef))
    assert not {name: count for name, count in names.items() if count > 1}


def test_every_module_says_what_it_is():
    docstrings = {module: ast.get_docstring(ast.parse(text)) for module, text in read_sources(ROOT).items()}
    assert not [module for module, text in docstrings.items() if not text or "TODO" in text]
