"""One function opens any network in any engine, and loads no other engine for it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from stream.network.engine import open_network
from stream.network.exported import ExportedNetwork, write_export
from stream.network.network import load_network

PROGRAM = """
import sys
from pathlib import Path
import numpy as np
from stream.network.boxes import detect
from stream.network.engine import open_network
from stream.letterbox import Letterbox
network = open_network(Path(sys.argv[1]))
size = (32, 32)
(logits,) = network.tail("9")([network.head("9", size)(np.zeros((*size, 3), np.uint8))])
detect(logits, network.levels, Letterbox(size, size))
print(*{"torch", "torchvision", "ultralytics", "asyncio"} & set(sys.modules))
"""


def test_the_default_engine_loads_no_torch(small):
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(small)], check=True, capture_output=True, text=True
    )
    assert run.stdout.split() == []


def test_both_engines_compute_the_same(small):
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    made = []
    for engine in ("onnxruntime", "torch"):
        network = open_network(small, engine)
        made.append(network.tail("4.m")([network.head("4.m", (64, 96))(image)])[0])
    for ours, expected in zip(*made, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)


def test_half_precision_is_nearly_the_same(small):
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    exact, half = (
        open_network(small, engine).head("4.m", (64, 96))(image) for engine in ("torch", "torch-half")
    )
    for name, expected in exact.items():
        assert half[name].dtype == np.float32
        assert 0 < np.abs(half[name] - expected).max() < 0.01 * np.abs(expected).max()


def test_opens_an_exported_folder(small, tmp_path):
    write_export(load_network(small), "small", "9", tmp_path / "export", software="test")
    assert isinstance(open_network(tmp_path / "export"), ExportedNetwork)


def test_an_engine_that_is_not_installed_is_named(small, monkeypatch):
    monkeypatch.setitem(sys.modules, "stream.torch_network.engine", None)
    with pytest.raises(ModuleNotFoundError, match="torch_network"):
        open_network(small, "torch")
