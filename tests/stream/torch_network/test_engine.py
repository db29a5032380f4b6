"""The torch engine gives the logits of its own network, in batches, and in half precision where it is asked to."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stream.errors import InvalidSize, WrongTensors
from stream.network.network import Network, load_network, random_network
from stream.torch_network.engine import TorchNetwork, open_network
from stream.torch_network.model import torch_model
from stream.torch_network.split import TorchHead, TorchTail

SIZE = (64, 96)
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture(scope="module", params=["yolov5n", "yolov5nu"])
def network(request) -> Network:
    return random_network(request.param)


def pictures(count: int) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (count, *SIZE, 3), np.uint8))


def scores(logits: tuple[np.ndarray, ...], family: str) -> torch.Tensor:
    """Probabilities (classes, N) of one picture's boxes, as the reference predicts them."""
    levels = [torch.from_numpy(level) for level in logits]
    if family == "yolov5u":
        return torch.cat([level[64:].flatten(1) for level in levels], 1).sigmoid()
    anchors = [level.unflatten(0, (3, 85)).transpose(0, 1).flatten(1).sigmoid() for level in levels]
    return torch.cat([level[4:5] * level[5:] for level in anchors], 1)


@pytest.mark.parametrize("device", DEVICES)
def test_logits_are_what_the_reference_decodes(network, device):
    model = torch_model(network, device)
    engine = TorchNetwork(model, network.graph)
    images = pictures(2)
    frames = [engine.head("9", SIZE)(image) for image in images]
    for image, frame, logits in zip(images, frames, engine.tail("9")(frames), strict=True):
        expected = TorchHead(model, "9", SIZE)(image)
        assert all(np.array_equal(frame[name], values) for name, values in expected.items())
        prediction = TorchTail(model, "9")(frame)[0, 4:].cpu()
        torch.testing.assert_close(scores(logits, network.family), prediction, rtol=1e-3, atol=1e-4)


def test_half_precision_is_near(network):
    image = pictures(1)[0]
    single, half = (TorchNetwork(torch_model(network), network.graph, half=half) for half in (False, True))
    tensors = single.head("4.m", SIZE)(image)
    for name, values in half.head("4.m", SIZE)(image).items():
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, tensors[name], rtol=0.05, atol=0.05)
    for level, expected in zip(half.tail("4.m")([tensors])[0], single.tail("4.m")([tensors])[0], strict=True):
        assert level.dtype == np.float32
        assert not np.array_equal(level, expected)
        np.testing.assert_allclose(level, expected, rtol=0.05, atol=0.05)


def test_refuses_what_every_engine_refuses(network):
    engine = TorchNetwork(torch_model(network), network.graph)
    with pytest.raises(ValueError, match="uint8 pictures of shape"):
        engine.head("0", SIZE)(np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(InvalidSize):
        engine.head("0", (64, 65))
    with pytest.raises(WrongTensors, match="needs the tensors 0"):
        engine.tail("0")([{}])
    head = engine.head("0", SIZE)
    assert head.resized((32, 32)).layout[0].shape == (16, 16, 16)


def test_opens_a_checkpoint(small):
    engine = open_network(small, "cpu", 1)
    assert engine.device == "cpu"
    assert engine.weights_hash == load_network(small).weights_hash
