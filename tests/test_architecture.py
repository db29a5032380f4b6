"""Imports point one way, and in `stream` model code and socket code never meet."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT

ROOMS = ("codec", "stream", "services")
MAY_IMPORT = {"codec": {"codec"}, "stream": {"codec", "stream"}, "services": {"codec", "stream", "services"}}
CODEC_PACKAGES = {"numpy", "numba"}
TORCH = {"torch", "torchvision", "ultralytics"}
SOCKETS = {"asyncio", "aiohttp"}

MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for room in ROOMS
    for path in sorted((ROOT / room).rglob("*.py"))
}


def imported_modules(path: Path) -> set[str]:
    """Full names of the modules that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
    return names


IMPORTS = {module: imported_modules(path) for module, path in MODULES.items()}


def reach(module: str) -> set[str]:
    """Top-level packages that importing a module brings in by way of our own files."""
    seen: set[str] = set()
    todo = [module]
    packages: set[str] = set()
    while todo:
        for name in IMPORTS[todo.pop()]:
            packages.add(name.split(".")[0])
            if name in MODULES and name not in seen:
                seen.add(name)
                todo.append(name)
    return packages


def test_finds_the_rooms():
    assert {module.split(".")[0] for module in MODULES} == set(ROOMS)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module):
    room = module.split(".")[0]
    ours = {name.split(".")[0] for name in IMPORTS[module]} & set(ROOMS)
    assert ours <= MAY_IMPORT[room]


@pytest.mark.parametrize("module", [module for module in MODULES if module.startswith("codec")])
def test_codec_needs_no_more_than_numpy_and_numba(module):
    packages = {name.split(".")[0] for name in IMPORTS[module]}
    assert packages - sys.stdlib_module_names - {"codec"} <= CODEC_PACKAGES


@pytest.mark.parametrize("module", [module for module in MODULES if module.startswith("stream")])
def test_model_and_socket_code_never_meet_in_stream(module):
    packages = reach(module)
    assert not (packages & TORCH and packages & SOCKETS)
