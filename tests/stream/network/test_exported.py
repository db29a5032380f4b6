"""An exported folder computes what the network computes, and anything else in its place is refused."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from stream.errors import CheckpointError, InvalidSize, StreamError, UnknownSplitPoint, UnreadableCheckpoint
from stream.network.engine import open_network
from stream.network.exported import ExportedNetwork, write_export
from stream.network.names import EXPORT_DESCRIPTION
from stream.network.network import Network, load_network
from stream.network.onnx_engine import OnnxNetwork
from tests.stream.network import legacy
from tests.stream.network.checkpoints import small_description

SPLIT = "9"


@pytest.fixture(scope="module")
def network(small: Path) -> Network:
    return load_network(small)


@pytest.fixture(scope="module")
def exported(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "small"
    write_export(network, "small", SPLIT, folder, software="splitcast/test")
    return folder


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return shutil.copytree(exported, tmp_path / "export")


def rewrite_model(folder: Path, file: str, change) -> None:
    """A changed model, with its hash in the description: only what it holds can give it away."""
    model = onnx.load_model_from_string((folder / file).read_bytes())
    change(model)
    data = model.SerializeToString()
    (folder / file).write_bytes(data)
    describe(folder, files={**description(folder)["files"], file: hashlib.sha256(data).hexdigest()})


def description(folder: Path) -> dict:
    return json.loads((folder / EXPORT_DESCRIPTION).read_text())


def describe(folder: Path, **changes) -> None:
    (folder / EXPORT_DESCRIPTION).write_text(json.dumps({**description(folder), **changes}))


def use(folder: Path) -> None:
    """All that services do with one."""
    network = ExportedNetwork(folder)
    network.head(SPLIT, (32, 32))
    network.tail(SPLIT)


def test_computes_what_the_network_computes(network, exported):
    ours, expected = ExportedNetwork(exported), OnnxNetwork(network)
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    tensors = ours.head(SPLIT, (64, 96))(image)
    right = expected.head(SPLIT, (64, 96))(image)
    assert list(tensors) == list(right)
    assert all(np.array_equal(tensors[name], right[name]) for name in right)
    for level, right_level in zip(
        ours.tail(SPLIT)([tensors])[0], expected.tail(SPLIT)([right])[0], strict=True
    ):
        assert np.array_equal(level, right_level)


def test_says_all_that_the_network_says(network, exported):
    ours, expected = open_network(exported), OnnxNetwork(network)
    assert ours.cut(SPLIT) == expected.cut(SPLIT)
    for fact in ("names", "weights_hash", "levels", "stride", "device"):
        assert getattr(ours, fact) == getattr(expected, fact)
    assert ours.split_points == (SPLIT,)
    with pytest.raises(UnknownSplitPoint, match="near it are 9"):
        ours.head("4.m", (64, 96))
    with pytest.raises(InvalidSize):
        ours.head(SPLIT, (64, 97))
    with pytest.raises(UnreadableCheckpoint, match="take --engine onnxruntime"):
        open_network(exported, "torch")


def test_is_written_whole_or_not_at_all(network, tmp_path):
    def fail(exported):
        assert {path.name for path in tmp_path.iterdir()} == {exported._folder.name}
        raise RuntimeError("not equal")

    with pytest.raises(RuntimeError, match="not equal"):
        write_export(network, "small", SPLIT, tmp_path / "export", software="test", check=fail)
    with pytest.raises(UnknownSplitPoint):
        write_export(network, "small", "99", tmp_path / "export", software="test")
    assert list(tmp_path.iterdir()) == []


def test_does_not_write_over_what_is_there(network, folder):
    before = sorted(path.read_bytes() for path in folder.iterdir())
    with pytest.raises(FileExistsError, match="not empty"):
        write_export(network, "small", SPLIT, folder, software="test")
    assert sorted(path.read_bytes() for path in folder.iterdir()) == before


def test_an_anchor_free_network_has_no_anchors(tmp_path):
    from stream.network.network import random_network

    network = random_network("yolov5nu")
    write_export(network, "yolov5nu", "4.m", tmp_path / "u", software="test")
    assert description(tmp_path / "u")["anchors"] == []
    assert ExportedNetwork(tmp_path / "u").levels == network.levels


@pytest.mark.parametrize("file", ["head.onnx", "tail.onnx", EXPORT_DESCRIPTION])
@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-9]),
        lambda path: path.write_bytes(path.read_bytes().replace(b"a", b"b")),
        lambda path: path.write_bytes(b"[" * 100_000),
        lambda path: (path.unlink(), path.mkdir()),
    ],
    ids=["absent", "empty", "cut", "changed", "nested", "folder"],
)
def test_damage_is_refused_by_name(folder, file, damage):
    damage(folder / file)
    with pytest.raises(CheckpointError, match=file):
        use(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"weights": "abc"},
        {"names": []},
        {"names": ["a"]},
        {"names": ["a"] * 5000},
        {"family": "yolov8"},
        {"strides": [8, 16]},
        {"strides": [8, 16, 32, 64]},
        {"strides": [8, 16, 33]},
        {"strides": [0, 16, 32]},
        {"anchors": []},
        {"anchors": [[[1, 2]], [[1, 2], [3, 4]], [[1, 2]]]},
        {"anchors": [[[1e300, 2]]] * 3},
        {"stride": 1},
        {"stride": 48},
        {"tensors": []},
        {"tensors": [{"name": "9", "channels": 1 << 40, "stride": 8}]},
        {"tensors": [{"name": "9", "channels": 8, "stride": 32}]},
        {"tensors": [{"name": "9", "channels": 1 << 16, "stride": 1}]},
        {"files": {}},
        {"files": {"../../etc/passwd": "0" * 64}},
        {"head_flops": -1.0},
        {"more": 1},
    ],
    ids=lambda change: "-".join(f"{key}={value}"[:30] for key, value in change.items()),
)
def test_a_description_of_something_else_is_refused(folder, change):
    describe(folder, **change)
    with pytest.raises(StreamError, match="export"):
        use(folder)


def outside(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def half_outside(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].external_data.add(key="location", value="/etc/passwd")


def in_an_attribute(model: onnx.ModelProto) -> None:
    tensor = helper.make_tensor("t", TensorProto.FLOAT, [1], [1.0])
    model.graph.node[0].attribute.append(helper.make_attribute("value", tensor))


def sparse(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.add()


def other_operator(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "Loop"


def other_domain(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "com.microsoft"


def other_version(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 21


def function(model: onnx.ModelProto) -> None:
    model.functions.add()


def other_output(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = model.graph.node[0].output[0]


def other_weights(model: onnx.ModelProto) -> None:
    del model.graph.initializer[0].dims[0]


def not_finite(model: onnx.ModelProto) -> None:
    bias = next(value for value in model.graph.initializer if value.name.endswith("bias"))
    bias.raw_data = np.full(bias.dims, np.nan, np.float32).tobytes()


def doubling(model: onnx.ModelProto) -> None:
    """Sixteen layers that put out twice as much each, beside the others."""
    names = [model.graph.input[0].name, *(f"doubled{number}" for number in range(16))]
    for number, (name, twice) in enumerate(pairwise(names)):
        model.graph.node.insert(number, helper.make_node("Concat", [name, name], [twice], axis=2))
    model.graph.node.append(helper.make_node("Relu", [twice], ["spared by no optimizer"]))


def wide_padding(model: onnx.ModelProto) -> None:
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    next(attribute for attribute in conv.attribute if attribute.name == "pads").ints[:] = [1000] * 4


def wide_pooling(model: onnx.ModelProto) -> None:
    pooling = helper.make_node(
        "MaxPool", [model.graph.input[0].name], ["pooled"], kernel_shape=[9999] * 2, pads=[4999] * 4
    )
    model.graph.node.insert(0, pooling)


def no_size(model: onnx.ModelProto) -> None:
    """A layer whose output's size depends on what another has computed."""
    model.graph.initializer.append(helper.make_tensor("half", TensorProto.FLOAT, [4], [0.5] * 4))
    model.graph.node.insert(0, helper.make_node("Add", ["half", "half"], ["one"]))
    first = model.graph.input[0].name
    model.graph.node.insert(1, helper.make_node("Resize", [first, "", "one"], ["resized"], mode="nearest"))


def no_nodes(model: onnx.ModelProto) -> None:
    del model.graph.node[:]


@pytest.mark.parametrize("file", ["head.onnx", "tail.onnx"])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (outside, "in other files, which are never read"),
        (half_outside, "in other files, which are never read"),
        (in_an_attribute, "no network that Splitcast has written"),
        (sparse, "no network that Splitcast has written"),
        (other_operator, "no network of ours needs: Loop"),
        (other_domain, "no network of ours needs"),
        (other_version, "other operators than those"),
        (function, "other operators than those"),
        (other_output, "does not put out what|other inputs or outputs"),
        (other_weights, "cannot be run"),
        (not_finite, "not finite"),
        (no_nodes, "cannot be run"),
        (doubling, "more memory or time than any network"),
        (wide_padding, "more memory or time than any network|cannot be run"),
        (wide_pooling, "more memory or time than any network"),
        (no_size, "has no size"),
    ],
)
def test_a_model_of_something_else_is_refused(folder, file, change, reason):
    rewrite_model(folder, file, change)
    with pytest.raises(CheckpointError, match=reason):
        use(folder)


def test_a_file_of_any_size_is_not_read_whole(folder, monkeypatch):
    monkeypatch.setattr("stream.network.exported._MAX_MODEL_BYTES", 1000)
    with pytest.raises(UnreadableCheckpoint, match=r"head\.onnx is larger than 1000 bytes"):
        ExportedNetwork(folder).head(SPLIT, (32, 32))
    monkeypatch.setattr("stream.network.exported._MAX_DESCRIPTION_BYTES", 10)
    with pytest.raises(UnreadableCheckpoint, match="larger than 10 bytes"):
        ExportedNetwork(folder)


@pytest.mark.parametrize("file", ["head.onnx", "tail.onnx", EXPORT_DESCRIPTION])
def test_a_pipe_is_not_waited_for(folder, file):
    (folder / file).unlink()
    os.mkfifo(folder / file)
    with pytest.raises(UnreadableCheckpoint, match="no regular file"):
        use(folder)


def test_a_camera_needs_only_its_half(folder):
    (folder / "tail.onnx").unlink()
    ExportedNetwork(folder).head(SPLIT, (32, 32))


def test_the_activations_of_any_checkpoint_may_be_exported(tmp_path):
    from torch import nn

    oracle = legacy.Model(small_description())
    for path, act in (("model.0", nn.ReLU()), ("model.1", nn.LeakyReLU(0.1)), ("model.3", nn.Hardswish())):
        oracle.get_submodule(path).act = act
    network = load_network(legacy.save(oracle, tmp_path / "model.pt"))
    write_export(network, "acts", "4.m", tmp_path / "export", software="test")
