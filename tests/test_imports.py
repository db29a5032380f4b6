"""Every module can be imported by itself, also those that no other test of this Python runs."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import codec
import services
import stream

MODULES = [
    module.name
    for package in (codec, stream, services)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if not module.name.endswith("__main__")
]


@pytest.mark.parametrize("name", MODULES)
def test_imports(name):
    importlib.import_module(name)
