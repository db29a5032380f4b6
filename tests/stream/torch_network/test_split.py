"""Head and tail together are the network, bit for bit, wherever it is cut."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from torch import nn
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils.torch_utils import fuse_conv_and_bn

from codec.layout import TensorSpec
from stream.errors import UnknownSplitPoint, WrongTensors
from stream.network.checkpoint import read_checkpoint
from stream.network.cut import live_set, split_points
from stream.torch_network.model import Model, load_model, random_model
from stream.torch_network.split import TorchHead, TorchTail, Unsplit
from tests.stream.network import legacy

SIZE = (64, 96)
NAMES = [f"yolov5{scale}{suffix}" for scale in "nsm" for suffix in ("", "u")]


@cache
def network(name: str) -> Model:
    return random_model(name)


def picture(size: tuple[int, int] = SIZE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def tensor_of(image: np.ndarray) -> torch.Tensor:
    """The network's input, written apart from the package's own."""
    bgr = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None]
    return bgr.flip(1).contiguous() / 255


def fuse(model: nn.Module) -> nn.Module:
    """Folds batch normalization away and lays weights out as the package does, to compare bit for bit."""
    for module in model.modules():
        if hasattr(module, "bn"):
            module.conv = fuse_conv_and_bn(module.conv, module.bn)
            module.bn = nn.Identity()
    return model.to(memory_format=torch.channels_last)


def assert_every_split_agrees(model: Model, image: np.ndarray, expected: torch.Tensor) -> None:
    for split in split_points(model.graph):
        tensors = TorchHead(model, split, image.shape[:2])(image)
        result = TorchTail(model, split)(tensors)
        assert torch.equal(result, expected), split


@pytest.mark.parametrize("name", NAMES)
def test_every_split_of_random_weights_agrees_with_the_unsplit_graph(name):
    image = picture()
    expected = Unsplit(network(name))(image)
    assert expected.shape[:2] == (1, 84)
    assert expected[:, 4:].std() > 1e-3  # random, yet not degenerate
    assert_every_split_agrees(network(name), image, expected)


@pytest.mark.parametrize("scale", "nsm")
def test_every_split_agrees_with_a_plain_loop_over_the_original_layers(tmp_path, scale):
    oracle = legacy.Model(legacy.description(scale))
    model = load_model(legacy.save(oracle, tmp_path / "model.pt"))
    image = picture()
    expected = legacy.as_predictions(fuse(oracle)(tensor_of(image)))
    assert_every_split_agrees(model, image, expected)


@pytest.mark.parametrize("scale", "nsm")
def test_every_split_agrees_with_ultralytics_own_forward(tmp_path, scale):
    oracle = DetectionModel(f"yolov5{scale}.yaml", verbose=False).eval()
    legacy.randomize(oracle, seed=1)
    torch.save({"model": oracle}, tmp_path / "model.pt")
    model = load_model(tmp_path / "model.pt")
    assert model.family == "yolov5u"
    image = picture()
    with torch.inference_mode():
        expected = fuse(oracle)(tensor_of(image))[0]
    assert_every_split_agrees(model, image, expected)


@pytest.mark.shared
@pytest.mark.parametrize("size", [(64, 96), (480, 640)])
def test_every_split_of_the_official_weights_agrees_with_the_original_layers(yolov5n_weights, size):
    oracle = legacy.Model(legacy.description("n"))
    state = read_checkpoint(yolov5n_weights).state
    grid = state.pop("model.24.anchor_grid")  # v6.0 files repeat the anchors in pixels; later ones do not
    assert grid.ravel().tolist() == np.ravel(legacy.ANCHORS).tolist()
    oracle.load_state_dict({name: torch.tensor(values).float() for name, values in state.items()})
    image = picture(size)
    expected = legacy.as_predictions(fuse(oracle)(tensor_of(image)))
    model = load_model(yolov5n_weights)
    if size == SIZE:
        assert_every_split_agrees(model, image, expected)
    else:
        assert torch.equal(TorchTail(model)(TorchHead(model, size=size)(image)), expected)


@pytest.mark.parametrize("name", ["yolov5n", "yolov5nu"])
def test_one_model_serves_many_sizes_and_batches(name):
    model = network(name)
    tail = TorchTail(model)
    seen = []
    for size in [(64, 96), (96, 64), (64, 96), (128, 128)]:
        seen.append(tail(TorchHead(model, size=size)(picture(size))))
        assert torch.equal(seen[-1], Unsplit(model)(picture(size)))
    assert torch.equal(seen[0], seen[2])
    pictures = torch.cat([tensor_of(picture(seed=seed)) for seed in range(3)])
    batch = tail.run(TorchHead(model, size=SIZE).run(pictures))
    assert batch.shape == (3, 84, seen[0].shape[-1])
    torch.testing.assert_close(batch[:1], seen[0], rtol=1e-4, atol=1e-4)


def test_head_gives_what_its_layout_says():
    head = TorchHead(network("yolov5n"), "6.m.0", SIZE)
    tensors = head(picture())
    assert tuple(TensorSpec(name, array.shape) for name, array in tensors.items()) == head.layout
    assert all(array.dtype == np.float32 and array.flags.c_contiguous for array in tensors.values())


def test_tensors_do_not_change_when_the_head_runs_again():
    head = TorchHead(network("yolov5n"), size=SIZE)
    first = head(picture(seed=1))
    kept = {name: array.copy() for name, array in first.items()}
    head(picture(seed=2))
    assert all(np.array_equal(first[name], kept[name]) for name in kept)


def test_tail_does_not_change_its_tensors():
    model = network("yolov5nu")
    for split in split_points(model.graph):
        tensors = TorchHead(model, split, SIZE)(picture())
        kept = {name: array.copy() for name, array in tensors.items()}
        TorchTail(model, split)(tensors)
        assert all(np.array_equal(tensors[name], kept[name]) for name in kept), split


def test_halves_hold_only_their_own_layers():
    model = random_model("yolov5n")
    head, tail = TorchHead(model, size=SIZE), TorchTail(model)
    names = [[node.name for node in half._nodes] for half in (head, tail)]
    assert names[0] + names[1] == [node.name for node in model.graph.nodes]


@pytest.mark.parametrize(
    "image",
    [picture((64, 64)), picture()[..., :1], picture().astype(np.float32)],
    ids=["size", "gray", "float"],
)
def test_head_refuses_other_pictures(image):
    with pytest.raises(ValueError, match="uint8 pictures of shape"):
        TorchHead(network("yolov5n"), size=SIZE)(image)


@pytest.mark.parametrize("names", [(), ("4.m",), ("4.m", "4.cv2", "4")])
def test_tail_refuses_other_tensors(names):
    with pytest.raises(WrongTensors, match=r"needs the tensors 4\.cv2, 4\.m, got"):
        TorchTail(network("yolov5n"))({name: np.zeros((32, 8, 12), np.float32) for name in names})


def test_tail_takes_its_tensors_in_any_order():
    model = network("yolov5n")
    tensors = TorchHead(model, size=SIZE)(picture())
    assert tuple(tensors) == live_set(model.graph, "4.m")
    swapped = dict(reversed(tensors.items()))
    assert torch.equal(TorchTail(model)(swapped), TorchTail(model)(tensors))


@pytest.mark.parametrize("half", [TorchHead, TorchTail])
def test_unknown_split_points_are_refused(half):
    with pytest.raises(UnknownSplitPoint):
        half(network("yolov5n"), "24")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", ["yolov5n", "yolov5nu"])
def test_halves_agree_on_another_device(monkeypatch, name):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    cpu, cuda = random_model(name), random_model(name)
    for node in cuda.graph.nodes:
        node.module.to("cuda")
    image = picture()
    on_cuda = TorchTail(cuda)(TorchHead(cuda, size=SIZE)(image))
    assert on_cuda.device.type == "cuda"
    assert torch.equal(on_cuda, Unsplit(cuda)(image))
    torch.testing.assert_close(on_cuda.cpu(), Unsplit(cpu)(image), rtol=1e-3, atol=1e-2)
