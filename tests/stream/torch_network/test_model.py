"""A loaded network computes what the original computes, and its hash says which weights it has."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from ultralytics.nn.tasks import DetectionModel

from stream.canvas import canvas_for
from stream.errors import BrokenNetwork, InvalidSize, UnreadableCheckpoint, UnsupportedLayer
from stream.letterbox import Letterbox
from stream.network.checkpoint import read_checkpoint
from stream.network.cut import points
from stream.network.names import MODELS
from stream.torch_network.model import load_model, random_model
from stream.torch_network.nms import detect
from stream.torch_network.split import TorchHead, TorchTail
from tests.stream.network import legacy
from tests.stream.network.checkpoints import small_description

PICTURE = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
def predict(model, picture=PICTURE):
    return model.graph.forward(picture)


@pytest.mark.parametrize("scale", "nsm")
def test_a_legacy_network_predicts_as_the_original(tmp_path, scale):
    oracle = legacy.Model(legacy.description(scale)).half()
    model = load_model(legacy.save(oracle, tmp_path / "model.pt"))
    assert model.family == "yolov5"
    assert model.names == tuple(oracle.names)
    # Folding batch normalization moves the last bits, nothing more.
    torch.testing.assert_close(
        predict(model), legacy.as_predictions(oracle.float()(PICTURE)), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize(("levels", "stride"), [(4, 64), (5, 128)])
def test_a_network_of_more_levels_predicts_as_the_original(tmp_path, levels, stride):
    oracle = legacy.Model(legacy.deep_description(levels, classes=2))
    model = load_model(legacy.save(oracle, tmp_path / "model.pt"))
    assert model.stride == stride
    canvas = canvas_for(640, 480, 640, model.stride)
    assert canvas == (512, 640)
    picture = torch.rand(1, 3, *canvas, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        predict(model, picture), legacy.as_predictions(oracle(picture)), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize(("yaml", "stride"), [("yolov5n.yaml", 32), ("yolov5n-p6.yaml", 64)])
def test_an_anchor_free_network_knows_its_stride(tmp_path, yaml, stride):
    torch.save({"model": DetectionModel(yaml, verbose=False).eval()}, tmp_path / "model.pt")
    model = load_model(tmp_path / "model.pt")
    assert model.stride == stride
    assert TorchHead(model, size=(stride, 3 * stride)).layout


def test_a_fine_network_has_the_canvas_of_yolov5s_own_tools(tmp_path):
    """`check_img_size(640, max(stride, 32))` is how they were trained and are measured."""
    description = legacy.description("n", classes=2)
    description["backbone"] = description["backbone"][:5]
    description["head"] = [[[4], 1, "Detect", ["nc", "anchors"]]]
    description["anchors"] = legacy.ANCHORS[:1]
    model = load_model(legacy.save(legacy.Model(description), tmp_path / "model.pt"))
    assert model.stride == 32
    assert predict(model).shape == (2, 6, 3 * 8 * 12)


def test_a_canvas_that_the_network_cannot_have_is_an_error_of_the_size(tmp_path):
    model = load_model(
        legacy.save(legacy.Model(legacy.deep_description(4, classes=2)), tmp_path / "model.pt")
    )
    with pytest.raises(InvalidSize, match="480x640"):
        points(model.graph, (480, 640))
    with pytest.raises(InvalidSize, match="480x640"):
        TorchHead(model, "31", (480, 640))


@pytest.mark.parametrize("scale", "nsm")
def test_an_anchor_free_network_predicts_as_ultralytics(tmp_path, scale):
    oracle = DetectionModel(f"yolov5{scale}.yaml", verbose=False).eval()
    legacy.randomize(oracle, seed=1)
    torch.save({"model": oracle.half()}, tmp_path / "model.pt")
    model = load_model(tmp_path / "model.pt")
    assert model.family == "yolov5u"
    assert model.names[:2] == ("0", "1")
    with torch.inference_mode():
        expected = oracle.float()(PICTURE)[0]
    torch.testing.assert_close(predict(model), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("act", [nn.SiLU(), nn.Identity(), nn.ReLU(), nn.LeakyReLU(0.2), nn.Hardswish()])
def test_activations_are_the_checkpoints_own(tmp_path, act):
    oracle = legacy.Model(legacy.description("n"))
    for path in ("model.0", "model.9.cv1", "model.13.m.0.cv2"):
        oracle.get_submodule(path).act = copy.deepcopy(act)
    model = load_model(legacy.save(oracle, tmp_path / "model.pt"))
    torch.testing.assert_close(predict(model), legacy.as_predictions(oracle(PICTURE)), rtol=1e-3, atol=1e-3)


def test_anchors_and_classes_are_the_checkpoints_own(tmp_path):
    oracle = legacy.Model(legacy.description("n", classes=3))
    oracle.model[-1].anchors *= 1.7
    oracle.names = ["cat", "dog", "fish"]
    model = load_model(legacy.save(oracle, tmp_path / "model.pt"))
    assert model.names == ("cat", "dog", "fish")
    assert predict(model).shape[1] == 7
    torch.testing.assert_close(predict(model), legacy.as_predictions(oracle(PICTURE)), rtol=1e-3, atol=1e-3)


def test_names_may_be_a_dictionary_or_missing(tmp_path):
    oracle = legacy.Model(legacy.description("n", classes=2))
    oracle.names = {1: "dog", 0: "cat"}
    assert load_model(legacy.save(oracle, tmp_path / "model.pt")).names == ("cat", "dog")
    del oracle.names
    assert load_model(legacy.save(oracle, tmp_path / "model.pt")).names == ("class0", "class1")


def test_a_description_may_name_its_scale(tmp_path):
    oracle = legacy.Model(legacy.description("s"))
    yaml = {key: value for key, value in oracle.yaml.items() if not key.endswith("_multiple")}
    oracle.yaml = {**yaml, "scales": {"n": [0.33, 0.25, 1024], "s": [0.33, 0.50, 1024]}, "scale": "s"}
    model = load_model(legacy.save(oracle, tmp_path / "model.pt"))
    torch.testing.assert_close(predict(model), legacy.as_predictions(oracle(PICTURE)), rtol=1e-3, atol=1e-3)


# --- the hash ---


def test_equal_weights_have_equal_hashes_in_any_precision(tmp_path):
    half = legacy.Model(legacy.description("n")).half()
    hashes = set()
    for dtype in (torch.float16, torch.float32, torch.float64):
        model = copy.deepcopy(half).to(dtype)
        model.model[0].bn.num_batches_tracked += 5
        hashes.add(load_model(legacy.save(model, tmp_path / "model.pt")).weights_hash)
    (only,) = hashes
    assert len(only) == 64
    assert set(only) <= set("0123456789abcdef")


@pytest.mark.parametrize(
    "path", ["model.0.conv.weight", "model.9.cv2.bn.running_var", "model.24.anchors", "model.24.m.2.bias"]
)
def test_every_weight_counts_for_the_hash(tmp_path, path):
    model = legacy.Model(legacy.description("n"))
    before = load_model(legacy.save(model, tmp_path / "model.pt")).weights_hash
    with torch.no_grad():
        tensor = model.state_dict()[path]
        tensor.view(-1)[-1] *= 1 + 1e-6
    assert load_model(legacy.save(model, tmp_path / "model.pt")).weights_hash != before


@pytest.mark.shared
def test_the_official_weights_have_this_hash(yolov5n_weights):
    expected = "1e74be15e9dc5dd7efb8ed4c97d295ea10b8534e1082548ad7aae7811412e16f"
    assert load_model(yolov5n_weights).weights_hash == expected


# --- random weights ---


@pytest.mark.parametrize("name", ["yolov5n", "yolov5nu"])
def test_random_weights_follow_the_seed(name):
    first, again, other = random_model(name, 3), random_model(name, 3), random_model(name, 4)
    assert first.weights_hash == again.weights_hash != other.weights_hash
    assert torch.equal(predict(first), predict(again))
    assert not torch.equal(predict(first), predict(other))


@pytest.mark.parametrize("name", [name for name in MODELS if name[6] in "nsm"])
def test_official_networks_predict_finite_numbers(name):
    assert predict(random_model(name)).isfinite().all()


# --- the official weights on real pictures ---


def labels_of(image: Path) -> np.ndarray:
    path = Path(str(image).replace("images", "labels")).with_suffix(".txt")
    return np.loadtxt(path, ndmin=2) if path.exists() else np.zeros((0, 5))


def overlap(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Intersection over union of one box with many."""
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    shared = np.clip(high - low, 0, None).prod(1)
    return shared / ((box[2:] - box[:2]).prod() + (boxes[:, 2:] - boxes[:, :2]).prod(1) - shared)


@pytest.mark.shared
def test_finds_the_large_people_and_cars_of_real_pictures(shared_data, yolov5n_weights):
    model = load_model(yolov5n_weights)
    tail = TorchTail(model)
    wanted = {model.names.index("person"), model.names.index("car")}
    found = labeled = 0
    for path in sorted((shared_data / "coco" / "images" / "val2017").glob("*.jpg"))[:24]:
        image = cv2.imread(str(path))
        height, width = image.shape[:2]
        box = Letterbox((height, width), canvas_for(640, height, width, model.stride))
        result = detect(tail(TorchHead(model, size=box.canvas)(box.apply(image))), box)
        assert (result.boxes >= 0).all()
        assert (result.boxes <= [width, height, width, height]).all()
        for class_id, *center_and_size in labels_of(path):
            x, y, w, h = np.array(center_and_size) * [width, height, width, height]
            if class_id not in wanted or w * h < 96**2:  # COCO's threshold for large
                continue
            labeled += 1
            same = result.boxes[result.class_id == class_id]
            truth = np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
            found += len(same) > 0 and overlap(truth, same).max() > 0.5
    assert labeled >= 20
    assert found / labeled > 0.8


@pytest.mark.shared
def test_the_official_file_is_half_precision_and_computed_in_single(yolov5n_weights):
    stored = read_checkpoint(yolov5n_weights).state["model.0.conv.weight"]
    assert stored.dtype == np.float16
    model = load_model(yolov5n_weights)
    assert all(
        value.dtype == torch.float32 for node in model.graph.nodes for value in node.module.parameters()
    )
    assert model.device.type == "cpu"


def test_a_missing_file_is_an_error_of_its_own(tmp_path):
    with pytest.raises(UnreadableCheckpoint, match="no checkpoint at"):
        load_model(tmp_path / "absent.pt")


def test_refuses_other_activations(tmp_path):
    model = legacy.Model(small_description())
    model.model[0].act = nn.PReLU()
    with pytest.raises(UnsupportedLayer, match="PReLU"):
        load_model(legacy.save(model, tmp_path / "model.pt"))


def test_refuses_a_wrong_number_of_names(tmp_path):
    model = legacy.Model(small_description())
    model.names = ["one"]
    with pytest.raises(UnreadableCheckpoint, match="names 1 classes but predicts 2"):
        load_model(legacy.save(model, tmp_path / "model.pt"))


@pytest.mark.parametrize(
    "path", ["model.0.conv.weight", "model.9.cv2.bn.running_var", "model.24.anchors", "model.24.m.2.bias"]
)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_refuses_weights_that_are_not_finite_by_name(tmp_path, path, value, dtype):
    model = legacy.Model(small_description()).to(dtype)
    with torch.no_grad():
        model.state_dict()[path].view(-1)[-1] = value
    with pytest.raises(
        BrokenNetwork, match=rf"model\.pt: {re.escape(path)} holds numbers that are not finite"
    ):
        load_model(legacy.save(model, tmp_path / "model.pt"))


def test_refuses_an_anchor_grid_that_is_not_finite(tmp_path):
    """It is not computed with, but whoever wrote it wrote the rest."""
    model = legacy.Model(small_description())
    model.model[-1].register_buffer("anchor_grid", torch.full((3, 1, 3, 1, 1, 2), float("nan")))
    with pytest.raises(BrokenNetwork, match=r"model\.24\.anchor_grid"):
        load_model(legacy.save(model, tmp_path / "model.pt"))


def test_refuses_numbers_that_single_precision_cannot_hold(tmp_path):
    model = legacy.Model(small_description()).double()
    with torch.no_grad():
        model.model[5].bn.weight[0] = 1e300
    with pytest.raises(BrokenNetwork, match=r"model\.5\.bn\.weight holds numbers beyond what float32"):
        load_model(legacy.save(model, tmp_path / "model.pt"))


def test_refuses_weights_that_are_whole_numbers(tmp_path):
    model = legacy.Model(small_description())
    model.model[5].conv.weight = nn.Parameter(model.model[5].conv.weight.to(torch.int8), requires_grad=False)
    with pytest.raises(UnreadableCheckpoint, match=r"model\.5\.conv\.weight holds int8"):
        load_model(legacy.save(model, tmp_path / "model.pt"))


def test_refuses_missing_and_surplus_weights(tmp_path):
    for change in (
        lambda model: delattr(model.model[5], "bn"),
        lambda model: model.model[5].register_buffer("more", torch.zeros(1)),
        lambda model: setattr(model.model[5].conv, "weight", nn.Parameter(torch.zeros(1))),
    ):
        model = legacy.Model(small_description())
        change(model)
        with pytest.raises(UnreadableCheckpoint, match=r"model\.5\."):
            load_model(legacy.save(model, tmp_path / "model.pt"))
