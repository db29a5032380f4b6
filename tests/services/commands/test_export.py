"""`splitcast export` writes what camera and detector run, once it is known to be the network."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import replace

import numpy as np
import pytest

from services.camera.settings import CameraSettings
from services.cli import main
from services.detector.settings import DetectorSettings
from services.errors import Exit
from services.loading import load_network
from stream.network.download import find_weights
from stream.network.names import EXPORT_DESCRIPTION
from stream.network.network import load_network as read_network
from stream.torch_network.model import torch_model
from tests.services.clips import FRAMES
from tests.services.waiting import LIVENESS_S


@pytest.fixture
def exported(weights, tmp_path, capsys):
    folder = tmp_path / "network"
    assert main(["export", "--model", str(weights), "--split", "9", "-o", str(folder)]) == Exit.OK
    said = capsys.readouterr().out
    assert "random split at 9; logits within 0.001 of torch's" in said
    assert "  9: 256 channels, 1/32 of the picture's side" in said
    return folder


def test_camera_and_detector_run_it(weights, exported):
    from_file = load_network(DetectorSettings.load({"model": str(weights)}))
    camera = load_network(CameraSettings.load({"model": str(exported), "source": "demo", "split": "9"}))
    detector = load_network(DetectorSettings.load({"model": str(exported), "engine": "auto"}))
    assert camera.model.weights_hash == detector.model.weights_hash == from_file.model.weights_hash
    assert (from_file.default_split, detector.default_split) == ("4.m", "9")
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    tensors = camera.model.head("9", (64, 64))(image)
    for level, expected in zip(
        detector.model.tail("9")([tensors])[0], from_file.model.tail("9")([tensors])[0], strict=True
    ):
        assert np.array_equal(level, expected)


def test_the_description_is_for_other_programs(weights, exported):
    description = json.loads((exported / EXPORT_DESCRIPTION).read_text())
    network = read_network(find_weights(str(weights)))
    assert description["weights"] == network.weights_hash
    assert description["names"] == list(network.names)
    assert description["strides"] == [8, 16, 32]
    assert [tensor["stride"] for tensor in description["tensors"]] == [8, 16, 32]


@pytest.mark.parametrize("layer", [0, -1], ids=["head", "tail"])
def test_what_differs_from_torch_is_not_written(weights, tmp_path, capsys, monkeypatch, layer):
    def make_another(network):
        path = network.graph.convolutions[layer].path
        weight, bias = network.weights[path]
        return torch_model(replace(network, weights={**network.weights, path: (weight, bias + 1)}))

    monkeypatch.setattr("stream.torch_network.model.torch_model", make_another)
    assert main(["export", "--model", str(weights), "-o", str(tmp_path / "network")]) == Exit.WEIGHTS
    assert "differs from torch" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_without_torch_it_says_that_nothing_was_compared(weights, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "stream.torch_network.engine", None)
    assert main(["export", "--model", str(weights), "-o", str(tmp_path / "network")]) == Exit.OK
    assert "torch is not installed, so that it was run but not compared" in capsys.readouterr().out


@pytest.fixture
def chosen(tmp_path, monkeypatch):
    """The folder that relative paths begin in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        ("--split 99", Exit.USAGE, "unknown split point"),
        ("--output absent/network", Exit.USAGE, "there is no folder absent"),
        ("--model none.pt", Exit.WEIGHTS, "no weights at none.pt"),
    ],
)
def test_refuses_what_cannot_be_exported(weights, chosen, capsys, arguments, code, reason):  # noqa: PLR0917
    given = ["--model", str(weights), "--output", "network", *arguments.split()]
    assert main(["export", *given]) == code
    assert reason in capsys.readouterr().err
    assert list(chosen.iterdir()) == []


def test_what_was_exported_is_not_exported_again(exported, tmp_path, capsys):
    assert main(["export", "--model", str(exported), "-o", str(tmp_path / "again")]) == Exit.USAGE
    assert "cannot be exported again" in capsys.readouterr().err


async def test_a_camera_and_a_detector_stream_with_it(exported, start_detector, make_camera):
    async with start_detector(model=str(exported)) as running:
        camera = make_camera(running.url, model=str(exported), split="9", codec="rle:bits=4")
        await asyncio.wait_for(camera.run(), LIVENESS_S)
    assert camera.statistics.frame_counts.detected == FRAMES
