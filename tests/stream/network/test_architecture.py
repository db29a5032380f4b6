"""A description makes official networks and nothing that grows."""

from __future__ import annotations

import pytest

from stream.errors import CheckpointError, UnreadableCheckpoint, UnsupportedLayer
from stream.network import architecture
from stream.network.checkpoint import read_checkpoint
from stream.network.network import load_network
from stream.network.operations import Bottleneck
from tests.stream.network import legacy
from tests.stream.network.checkpoints import MODULE, keyed, small_description, text, write

CONV, C3, UPSAMPLE = (
    [-1, 1, "Conv", [64, 3, 32]],
    [-1, 16, "C3", [64]],
    [-1, 1, "nn.Upsample", [None, 2, "nearest"]],
)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([CONV] * 65, "lacks its layers"),
        ([CONV] * 1000, "too long a list"),
        ([CONV, [-1, 17, "C3", [64]]], "repeated 17 times"),
        ([CONV] + [C3] * 60, "more than 128 bottlenecks"),
        ([CONV, [[-1] * 9, 1, "Concat", [1]]], "more than 8 layers"),
        ([CONV, *[[[-1] * 8, 1, "Concat", [1]]] * 3], "32768 channels"),
        ([CONV, [-1, 1, "Concat", [1] * 9]], "too long a list"),
        ([UPSAMPLE] * 10, "too large"),
        ([CONV, *[UPSAMPLE] * 9], "too large"),
        ([[-1, 1, "Conv", [2048]]], "too large"),
        ([CONV, CONV, *[UPSAMPLE] * 10], "too small"),
        ([CONV, [-1, 1, "Conv", [64, 1, 1, 64]]], "padding 64"),
        ([CONV, [-1, 1, "Conv", [64, 2]]], "padding 1"),
        ([[-1, 1, "Conv", [64, 3, 3]]], "stride 3"),
        ([[-1, 1, "Conv", [64, 3, 33]]], "stride 33"),
        ([[-1, 1, "Conv", [64, 3, 1, 0]]], "kernel 3, stride 1 and padding 0"),
        ([[-1, 1, "Conv", [64, 5, 2, 1]]], "kernel 5, stride 2 and padding 1"),
    ],
)
def test_refuses_networks_that_would_grow(monkeypatch, rows, reason):
    made: list[Bottleneck] = []

    def counted(*arguments) -> Bottleneck:
        made.append(Bottleneck(*arguments))
        return made[-1]

    monkeypatch.setattr(architecture, "Bottleneck", counted)
    yaml = {"nc": 80, "depth_multiple": 1.0, "width_multiple": 1.0, "backbone": rows, "head": []}
    with pytest.raises(UnreadableCheckpoint, match=reason):
        architecture.build_layers(yaml, "yolov5")
    assert len(made) <= 128


def test_refuses_repeats_that_the_depth_multiplies():
    yaml = {"nc": 80, "depth_multiple": 10.0, "width_multiple": 1.0, "backbone": [CONV, C3], "head": []}
    with pytest.raises(UnreadableCheckpoint, match=r"repeated 16 times at depth 10\.0"):
        architecture.build_layers(yaml, "yolov5")


def test_refuses_a_scale_too_deep_to_hash(tmp_path):
    yaml = (
        keyed(1, lambda _: text("n")).join([b"}(" + text("scales"), text("scale")]) + b")" + b"\x85" * 200_000
    )
    model = MODULE + b"}(" + text("yaml") + yaml + b"u" + text("_buffers") + b"}ub"
    program = b"\x80\x02}" + text("model") + model + b"s."
    yaml_read = read_checkpoint(write(tmp_path / "model.pt", program)).yaml
    with pytest.raises(UnreadableCheckpoint, match="not a letter"):
        architecture.build_layers(yaml_read, "yolov5")


@pytest.mark.parametrize("scale", architecture.SCALES)
def test_official_networks_are_within_the_bounds(scale):
    layers = architecture.build_layers(architecture.description(scale), "yolov5")
    assert len(layers) == 25


@pytest.mark.parametrize("levels", [4, 5])
def test_networks_of_more_levels_are_within_the_bounds_at_any_scale(levels):
    described = legacy.deep_description(levels)
    for depth, width in architecture.SCALES.values():
        described |= {"depth_multiple": depth, "width_multiple": width}
        layers = architecture.build_layers(described, "yolov5")
        assert len(layers[-1].sources) == levels


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda yaml: yaml["backbone"].__setitem__(0, [-1, 1, "Focus", [64, 3]]), "Focus"),
        (lambda yaml: yaml["backbone"].__setitem__(9, [-1, 1, "SPP", [1024, [5, 9, 13]]]), "SPP"),
        (lambda yaml: yaml["backbone"].__setitem__(8, [-1, 3, "C3TR", [1024]]), "C3TR"),
        (
            lambda yaml: yaml["head"].__setitem__(1, [-1, 1, "nn.Upsample", [None, 4, "bicubic"]]),
            "nn.Upsample",
        ),
        (lambda yaml: yaml["head"].__setitem__(-1, [[17, 20, 23], 1, "Segment", ["nc"]]), "Segment"),
        (
            lambda yaml: yaml["head"].__setitem__(1, [-1, 1, "__import__('os').system('true')", []]),
            "__import__",
        ),
    ],
)
def test_names_unsupported_layers(tmp_path, change, name):
    model = legacy.Model(small_description())
    model.yaml = small_description()
    change(model.yaml)
    with pytest.raises(UnsupportedLayer, match=name) as caught:
        load_network(legacy.save(model, tmp_path / "model.pt"))
    assert caught.value.name.startswith(name)


@pytest.mark.parametrize(
    "change",
    [
        {"nc": 3},
        {"nc": -1},
        {"nc": 0},
        {"nc": "80"},
        {"nc": 10**30},
        {"depth_multiple": 1e300},
        {"depth_multiple": -1},
        {"depth_multiple": float("nan")},
        {"width_multiple": 1e9},
        {"width_multiple": 0.5},
        {"width_multiple": "wide"},
        {"width_multiple": None},
        {"backbone": None},
        {"backbone": []},
        {"backbone": [[-1, 10**9, "C3", [64]]]},
        {"backbone": [[-1, 1, "Conv", [10**30]]]},
        {"backbone": [[-1, 1, "Conv", [64, 0]]]},
        {"backbone": [[-1, 1, "Conv", [64, 3, 0]]]},
        {"backbone": [[-1, 1, "Conv", [64, 10**9]]]},
        {"backbone": [[-1, 1, "Conv", [64, 3, 2, "os.system('true')"]]]},
        {"backbone": [[-1, 1, "Conv", [64, 3, 1, 1, 7]]]},
        {"backbone": [[-1, 1, "Conv"]]},
        {"backbone": [5]},
        {"backbone": [[-2, 1, "Conv", [64]]]},
        {"backbone": [[0, 1, "Conv", [64]]]},
        {"backbone": [[True, 1, "Conv", [64]]]},
        {"backbone": [[[], 1, "Concat", [1]]]},
        {"backbone": [[-1, 1, "Conv", [64]]] * 1000},
        {"backbone": [[-1, 1, "nn.Upsample", [None, 2, "nearest"]]] * 150},
        {"head": [[[4, 6], 1, "Concat", [1]], [-1, 1, "Detect", ["nc"]]]},
        {"scales": {"n": [1, 2]}, "scale": "n"},
        {"scales": {"n": [1, 1, 1]}, "scale": []},
        {"scales": {"n": [1, 1, 1]}, "scale": "q"},
    ],
    ids=repr,
)
def test_refuses_descriptions_that_do_not_fit(tmp_path, change):
    model = legacy.Model(small_description())
    model.yaml = {**small_description(), **change}
    with pytest.raises(CheckpointError):
        load_network(legacy.save(model, tmp_path / "model.pt"))
