"""Reads what every module imports, anywhere in it and in whatever form, and holds it against a table."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TypeAlias

PACKAGES = ("codec", "stream", "services")
WINGS_IN_WINGS = {"services.study.experiments"}
_DYNAMIC = re.compile(r"((?:codec|stream|services)(?:\.\w+)+)(?::\w+)?")

Sources: TypeAlias = Mapping[str, str]
"""Text of every module by its full name; a package's own module ends in `__init__`."""


@dataclass(frozen=True)
class Rule:
    """What a wing may import."""

    ours: Collection[
        str
    ]  # packages, wings, single modules, or "codec/" for the modules of codec that lie in no wing
    others: Collection[str] = ()  # packages that are neither ours nor the standard library's
    never: Collection[str] = ()  # modules of the standard library
    reach: Collection[str] = field(
        default=()
    )  # top-level modules that not even what it imports of ours may import


@dataclass(frozen=True)
class _Imports:
    names: frozenset[str]  # dotted, as far as they are known: a module, or a module and a name in it
    relative: bool
    private: frozenset[str]


def read_sources(root: Path) -> Sources:
    """Every module of our packages below `root`."""
    return {
        ".".join(path.relative_to(root).with_suffix("").parts): path.read_text()
        for package in PACKAGES
        for path in sorted((root / package).rglob("*.py"))
    }


def faults(sources: Sources, table: Mapping[str, Rule]) -> list[str]:
    """A line for every import that the table refuses, every circle, and every module that has no place."""
    imports = {module: _read(text) for module, text in sources.items()}
    edges = {module: _modules(imports[module].names, sources) - {module} for module in sources}
    return [
        *_misplaced(sources, table),
        *_badly_written(imports),
        *_not_in_table(imports, edges, table),
        *_reached(imports, edges, table),
        *_circles(edges),
    ]


@cache
def _read(text: str) -> _Imports:
    names: set[str] = set()
    private: set[str] = set()
    relative = False
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            relative |= node.level > 0
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= full
            private |= {
                name for name in full if name.split(".")[0] in PACKAGES and re.search(r"\._[^_]", name)
            }
        elif isinstance(node, ast.Call) and (name := _imported_by_call(node)):
            names.add(name)
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and (match := _DYNAMIC.fullmatch(node.value))
        ):
            names.add(
                match[1]
            )  # a module's name in a string is an import to come: a door's, a table of commands'
    return _Imports(frozenset(names), relative, frozenset(private))


def _imported_by_call(node: ast.Call) -> str | None:
    """The module that `import_module("name")` or `__import__("name")` loads."""
    function = ast.unparse(node.func).rpartition(".")[2]
    if function not in {"import_module", "__import__"} or not node.args:
        return None
    argument = node.args[0]
    return argument.value if isinstance(argument, ast.Constant) and isinstance(argument.value, str) else None


def _modules(names: Collection[str], sources: Sources) -> set[str]:
    """Our modules among dotted names."""
    modules = set()
    for name in names:
        parts = name.split(".")
        for end in range(len(parts), 0, -1):
            module = ".".join(parts[:end])
            if module in sources:
                modules.add(module)
                break
            if f"{module}.__init__" in sources:
                modules.add(f"{module}.__init__")
                break
    return modules


def _wing(module: str, table: Mapping[str, Rule]) -> str:
    """The table's row for a module."""
    if module in table:
        return module
    package, *rest = module.split(".")
    return f"{package}/" if len(rest) == 1 else f"{package}.{rest[0]}"


def _misplaced(sources: Sources, table: Mapping[str, Rule]) -> Iterator[str]:
    for module in sources:
        if _wing(module, table) not in table:
            yield f"{module}: no such wing"
        folder = module.rpartition(".")[0]
        if folder.count(".") > 1 and folder not in WINGS_IN_WINGS:
            yield f"{module}: no wing has wings"


def _badly_written(imports: Mapping[str, _Imports]) -> Iterator[str]:
    for module, read in imports.items():
        if read.relative:
            yield f"{module}: relative import"
        for name in sorted(read.private):
            if not name.startswith(module.removesuffix(".__init__")):
                yield f"{module}: private name {name}"


def _allowed(target: str, rule: Rule, table: Mapping[str, Rule]) -> bool:
    package = target.split(".", maxsplit=1)[0]
    wing = _wing(target, table)
    return target in rule.ours or wing in rule.ours or package in rule.ours


def _not_in_table(
    imports: Mapping[str, _Imports], edges: Mapping[str, set[str]], table: Mapping[str, Rule]
) -> Iterator[str]:
    for module, read in imports.items():
        wing = _wing(module, table)
        if wing not in table:
            continue
        rule = table[wing]
        for target in sorted(edges[module]):
            if _wing(target, table) != wing and not _allowed(target, rule, table):
                yield f"{module} imports {target.removesuffix('.__init__')}"
        for package in sorted({name.split(".")[0] for name in read.names} - set(PACKAGES)):
            outside = package not in sys.stdlib_module_names
            if (outside and package not in rule.others) or package in rule.never:
                yield f"{module} imports {package}"


def _reached(
    imports: Mapping[str, _Imports], edges: Mapping[str, set[str]], table: Mapping[str, Rule]
) -> Iterator[str]:
    for module in imports:
        wing = _wing(module, table)
        refused = set(table[wing].reach) if wing in table else set()
        if not refused:
            continue
        seen, waiting = {module}, [module]
        while waiting:
            current = waiting.pop()
            for package in sorted({name.split(".")[0] for name in imports[current].names} & refused):
                yield f"{module} reaches {package}" + (f" by {current}" if current != module else "")
            waiting += sorted(edges[current] - seen)
            seen |= edges[current]


def _circles(edges: Mapping[str, set[str]]) -> Iterator[str]:
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        yield "circle: " + " -> ".join(error.args[1])
