"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.paths import ROOT, SHARED

# Kernels compile when their module is imported, and are cached beside it.
COMPILE = """
import importlib, pkgutil, codec, stream.network.boxes
for module in pkgutil.walk_packages(codec.__path__, "codec."):
    importlib.import_module(module.name)
"""


@pytest.fixture(scope="session", autouse=True)
def state_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Cameras keep their session in a folder of the tests' own."""
    before = os.environ.get("XDG_STATE_HOME")
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))
    yield
    if before is None:
        del os.environ["XDG_STATE_HOME"]
    else:
        os.environ["XDG_STATE_HOME"] = before


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: a good part of the tests wait, for outages and for programs that start."""
    return len(os.sched_getaffinity(0)) + 1


def pytest_configure(config: pytest.Config) -> None:
    """Compile the kernels once before workers start, each of which would compile them for itself otherwise."""
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        subprocess.run([sys.executable, "-c", COMPILE], cwd=ROOT, check=True)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name tests of random texts by what they are: workers have to find the same names."""
    random = isinstance(val, str) and re.search(r"spc_.{32}|[0-9a-f]{64}", val, re.IGNORECASE)
    return argname if random else None


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real weights, images and clips; the test is skipped where it is absent."""
    data = SHARED / "data"
    if not data.is_dir():
        pytest.skip(f"no real data at {data} (set SPLITCAST_SHARED)")
    return data


@pytest.fixture(scope="session")
def yolov5n_weights(shared_data: Path) -> Path:
    """The official COCO-pretrained YOLOv5n, release v6.0."""
    return shared_data / "weights" / "yolov5n.pt"
