"""The packages' doors: what they hand out is there, and their examples are true."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import subprocess
import sys

import pytest

import codec
import stream

DOORS = [codec, stream]
HEAVY = {"torch", "torchvision", "ultralytics", "cv2", "numpy", "asyncio", "aiohttp", "numba", "pydantic"}


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_every_name_is_there(door):
    assert len(door.__all__) == len(set(door.__all__))  # in the order that ruff demands
    assert all(hasattr(door, name) for name in door.__all__)
    assert set(door.__all__) <= set(dir(door))
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        door.absent  # noqa: B018


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_every_name_has_a_docstring(door):
    values = {name: getattr(door, name) for name in door.__all__}
    assert not [name for name, value in values.items() if callable(value) and not inspect.getdoc(value)]


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_the_examples_are_true(door):
    result = doctest.testmod(door)
    assert result.attempted
    assert not result.failed


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_type_checkers_see_what_programs_get(door):
    """A lazy door names each module twice: for type checkers, and for programs."""
    block = next(node for node in ast.parse(inspect.getsource(door)).body if isinstance(node, ast.If))
    seen = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert sorted(seen) == sorted(door.__all__)
    for name, module in seen.items():
        assert getattr(door, name) is getattr(importlib.import_module(module), name)


@pytest.mark.parametrize(("door", "name"), [("codec", "Stamp"), ("stream", "Frame")])
def test_a_door_loads_nothing(door, name):
    program = f"import sys, {door}; assert not {HEAVY} & set(sys.modules); {door}.{name}"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    ("door", "name", "without"),
    [
        ("codec", "CodecError", {"numba", "numpy"}),
        ("codec", "PacketHeader", {"numba"}),
        ("codec", "parse_codec", {"numba"}),
        ("stream", "CameraSession", {"torch", "cv2", "asyncio", "aiohttp", "numba"}),
        ("stream", "open_source", {"torch", "aiohttp", "numba"}),
        ("stream", "Head", {"aiohttp"}),
        ("stream", "SourceError", {"torch", "cv2", "asyncio", "pydantic"}),
    ],
)
def test_a_name_loads_no_more_than_it_needs(door, name, without):
    program = f"import sys; from {door} import {name}; print(*{without} & set(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert loaded.stdout.split() == []
