"""ONNX Runtime computes what the reference computes, wherever the network is cut, for pictures of any size."""

from __future__ import annotations

import copy
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn
from ultralytics.nn.tasks import DetectionModel

from codec.layout import TensorSpec
from stream.errors import InvalidSize, UnknownSplitPoint, WrongTensors
from stream.network.cut import split_points
from stream.network.network import Network, load_network, random_network
from stream.network.onnx_engine import OnnxNetwork, picture_array
from stream.torch_network.engine import TorchNetwork
from stream.torch_network.model import torch_model
from stream.torch_network.split import picture_tensor
from tests.stream.network import legacy

SIZE = (64, 96)
TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}
SPLITS = ("0", "2.cv2", "4.m", "9", "16")


def picture(size: tuple[int, int] = SIZE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


@cache
def network(name: str) -> Network:
    return random_network(name)


@cache
def pair(name: str) -> tuple[OnnxNetwork, TorchNetwork]:
    return both(network(name))


def both(of: Network) -> tuple[OnnxNetwork, TorchNetwork]:
    return OnnxNetwork(of), TorchNetwork(torch_model(of), of.graph)


def assert_agrees(
    ours: OnnxNetwork, reference: TorchNetwork, split: str, size: tuple[int, int] = SIZE
) -> None:
    """Head by head, tail by tail, and both together."""
    image = picture(size)
    tensors, expected = ours.head(split, size)(image), reference.head(split, size)(image)
    assert list(tensors) == list(expected) == [spec.name for spec in reference.head(split, size).layout]
    for name, values in tensors.items():
        np.testing.assert_allclose(values, expected[name], **TOLERANCE)
    (logits,), (expected_logits,) = ours.tail(split)([tensors]), reference.tail(split)([expected])
    assert len(logits) == len(expected_logits) == len(ours.levels.strides)
    for level, expected_level, stride in zip(logits, expected_logits, ours.levels.strides, strict=True):
        assert level.shape == (ours.levels.channels, size[0] // stride, size[1] // stride)
        assert level.dtype == np.float32
        np.testing.assert_allclose(level, expected_level, **TOLERANCE)


@pytest.mark.parametrize("split", [*SPLITS, "23"])
@pytest.mark.parametrize("name", ["yolov5n", "yolov5nu", "yolov5s"])
def test_random_networks_agree_with_the_reference(name, split):
    assert_agrees(*pair(name), split)


@pytest.mark.shared
@pytest.mark.parametrize("split", ["4.m", "9"])
def test_the_official_network_agrees_with_the_reference(yolov5n_weights, split):
    assert_agrees(*both(load_network(yolov5n_weights)), split, (192, 320))


@pytest.mark.parametrize("size", [(32, 32), (96, 64), (160, 256)])
def test_one_head_and_one_tail_serve_every_canvas(size):
    ours, reference = pair("yolov5n")
    head, tail = ours.head("4.m", SIZE), ours.tail("4.m")
    head(picture())
    resized = head.resized(size)
    assert (resized.size, head.size) == (size, SIZE)
    tensors = resized(picture(size))
    for name, values in reference.head("4.m", size)(picture(size)).items():
        np.testing.assert_allclose(tensors[name], values, **TOLERANCE)
    assert tuple(TensorSpec(name, values.shape) for name, values in tensors.items()) == resized.layout
    for level, expected in zip(tail([tensors])[0], reference.tail("4.m")([tensors])[0], strict=True):
        np.testing.assert_allclose(level, expected, **TOLERANCE)


@pytest.mark.parametrize("act", [nn.SiLU(), nn.Identity(), nn.ReLU(), nn.LeakyReLU(0.2), nn.Hardswish()])
def test_activations_agree_with_the_reference(tmp_path, act):
    oracle = legacy.Model(legacy.description("n", 2))
    for path in ("model.0", "model.9.cv1", "model.13.m.0.cv2"):
        oracle.get_submodule(path).act = copy.deepcopy(act)
    assert_agrees(*both(load_network(legacy.save(oracle, tmp_path / "model.pt"))), "4.m")


@pytest.mark.parametrize("split", ["4.m", "11", "32"])
def test_a_network_of_four_levels_agrees_with_the_reference(tmp_path, split):
    oracle = legacy.Model(legacy.deep_description(4, classes=2))
    ours, reference = both(load_network(legacy.save(oracle, tmp_path / "model.pt")))
    assert ours.stride == 64
    assert_agrees(ours, reference, split, (128, 192))
    with pytest.raises(InvalidSize, match="multiples of 64"):
        ours.head(split, (96, 128))


def test_an_anchor_free_checkpoint_agrees_with_the_reference(tmp_path):
    oracle = DetectionModel("yolov5n.yaml", verbose=False).eval()
    legacy.randomize(oracle, seed=1)
    torch.save({"model": oracle}, tmp_path / "model.pt")
    assert_agrees(*both(load_network(tmp_path / "model.pt")), "6")


def test_every_split_gives_the_same_logits():
    ours, _ = pair("yolov5n")
    image = picture()
    expected = ours.tail("0")([ours.head("0", SIZE)(image)])[0]
    for split in ours.split_points[::5]:
        logits = ours.tail(split)([ours.head(split, SIZE)(image)])[0]
        for level, expected_level in zip(logits, expected, strict=True):
            np.testing.assert_allclose(level, expected_level, rtol=1e-5, atol=1e-5)


def test_a_batch_is_its_frames():
    ours, _ = pair("yolov5nu")
    head, tail = ours.head("4.m", SIZE), ours.tail("4.m")
    frames = [head(picture(seed=seed)) for seed in range(3)]
    for frame, logits in zip(frames, tail(frames), strict=True):
        for level, alone in zip(logits, tail([frame])[0], strict=True):
            np.testing.assert_allclose(level, alone, rtol=1e-5, atol=1e-5)


def test_tensors_do_not_change_when_the_head_runs_again():
    head = pair("yolov5n")[0].head("4.m", SIZE)
    first = head(picture(seed=1))
    kept = {name: values.copy() for name, values in first.items()}
    head(picture(seed=2))
    assert all(np.array_equal(first[name], kept[name]) for name in kept)
    assert all(values.flags.c_contiguous and values.dtype == np.float32 for values in first.values())


def test_a_picture_becomes_what_torch_makes_of_it():
    every = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    for image in (every, picture()):
        assert np.array_equal(picture_array(image), picture_tensor(image, torch.device("cpu")).numpy())


def test_half_a_network_holds_its_own_weights_only():
    ours, _ = pair("yolov5n")
    weights = sum(values.nbytes for arrays in network("yolov5n").weights.values() for values in arrays)
    for split in ("4.m", "9"):
        head, tail = len(ours.head_model(split)), len(ours.tail_model(split))
        assert weights < head + tail < weights + 100_000


@pytest.mark.parametrize(
    "image",
    [picture((64, 64)), picture()[..., :1], picture().astype(np.float32)],
    ids=["size", "gray", "float"],
)
def test_head_refuses_other_pictures(image):
    with pytest.raises(ValueError, match="uint8 pictures of shape"):
        pair("yolov5n")[0].head("0", SIZE)(image)


@pytest.mark.parametrize("names", [(), ("4.m",), ("4.m", "4.cv2", "4")])
def test_tail_refuses_other_tensors(names):
    tail = pair("yolov5n")[0].tail("4.m")
    with pytest.raises(WrongTensors, match=r"needs the tensors 4\.cv2, 4\.m, got"):
        tail([{name: np.zeros((32, 8, 12), np.float32) for name in names}])


def test_unknown_split_points_are_refused():
    ours, reference = pair("yolov5n")
    for make in (ours.tail, ours.cut, reference.tail, lambda split: ours.head(split, SIZE)):
        with pytest.raises(UnknownSplitPoint):
            make("24")


def test_says_what_both_ends_agree_on(tmp_path):
    ours, reference = pair("yolov5n")
    of = network("yolov5n")
    for engine in (ours, reference):
        assert engine.names == of.names
        assert engine.weights_hash == of.weights_hash
        assert engine.levels == of.levels
        assert (engine.stride, engine.unnamed, engine.device) == (32, 0, "cpu")
        assert engine.split_points == split_points(of.graph)
