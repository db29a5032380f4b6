"""A session runs a model from several threads, says what goes wrong, and keeps no memory but where it should."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest

from stream.network import exported, onnx_engine
from stream.network.graph import INPUT
from stream.network.network import Network, random_network
from stream.network.onnx_graph import onnx_model
from stream.network.onnx_session import OnnxSession


@pytest.fixture(scope="module")
def network() -> Network:
    return random_network("yolov5n")


@pytest.fixture(scope="module")
def model(network) -> bytes:
    return onnx_model(network.graph.nodes[:3], network.weights, {INPUT: 3}, ("1", "2.cv2"))


def test_knows_what_it_reads_and_puts_out(model):
    session = OnnxSession(model)
    assert (session.inputs, session.outputs) == ((INPUT,), ("1", "2.cv2"))


def test_several_threads_may_run_it_at_once(model):
    session = OnnxSession(model)
    pictures = [
        np.random.default_rng(seed).random((1, 3, 64, 32 * (seed + 1)), np.float32) for seed in range(4)
    ]
    alone = [session({INPUT: picture})[0] for picture in pictures]
    together: dict[int, np.ndarray] = {}

    def run(number: int) -> None:
        for _ in range(5):
            together[number] = session({INPUT: pictures[number]})[0]

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(together[number], alone[number]) for number in range(4))


@pytest.mark.parametrize("model", [b"", b"nothing", b"\x08\x08" * 100])
def test_what_is_no_model_cannot_be_opened(model):
    with pytest.raises(RuntimeError):
        OnnxSession(model)


@pytest.mark.parametrize(
    "inputs",
    [{}, {INPUT: np.zeros((1, 4, 32, 32), np.float32)}, {INPUT: np.zeros((1, 3, 32, 32))}],
    ids=["none", "channels", "float64"],
)
def test_what_it_cannot_run_is_one_error(model, inputs, capfd):
    with pytest.raises((RuntimeError, ValueError)):
        OnnxSession(model)(inputs)
    assert not capfd.readouterr().err


LEFT_BEHIND = """
import ctypes, sys, numpy as np
from stream.network.graph import INPUT
from stream.network.network import random_network
from stream.network.onnx_graph import onnx_model
from stream.network.onnx_session import OnnxSession

def resident_mb():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS")) / 1e3

network = random_network("yolov5n")
model = onnx_model(network.graph.nodes[:3], network.weights, {INPUT: 3}, ("2.cv2",))
session = OnnxSession(model, keep_memory=sys.argv[1] == "True")
session({INPUT: np.zeros((1, 3, 64, 64), np.float32)})
before = resident_mb()
session({INPUT: np.zeros((1, 3, 1280, 1280), np.float32)})
ctypes.CDLL("libc.so.6").malloc_trim(0)
print(resident_mb() - before)
"""


def left_behind_mb(*, keep_memory):
    """Resident memory that a large picture leaves, after all that is free was handed back."""
    arguments = [sys.executable, "-c", LEFT_BEHIND, str(keep_memory)]
    return float(subprocess.run(arguments, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux what is resident")
def test_a_large_picture_leaves_no_memory_behind_unless_it_is_kept_for_the_next():
    assert left_behind_mb(keep_memory=False) < 20
    assert left_behind_mb(keep_memory=True) > 40


def test_a_head_keeps_its_memory_and_a_tail_none(network, tmp_path, monkeypatch):
    """A head's pictures are all of one size; a tail's, of every camera's."""
    kept = []

    class Spy(OnnxSession):
        def __init__(self, *arguments, **options):
            kept.append(options.get("keep_memory", False))
            super().__init__(*arguments, **options)

    for module in (onnx_engine, exported):
        monkeypatch.setattr(module, "OnnxSession", Spy)
    folder = tmp_path / "exported"
    exported.write_export(network, "yolov5n", "4.m", folder, software="splitcast/test")
    for made in (onnx_engine.OnnxNetwork(network), exported.ExportedNetwork(folder)):
        kept.clear()
        made.head("4.m", (64, 64))
        made.tail("4.m")
        assert kept == [True, False]
