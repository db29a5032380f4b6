"""A safetensors file gives back the network that was saved, and anything else is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from stream.errors import BrokenNetwork, CheckpointError, UnknownModel, UnreadableCheckpoint
from stream.network.checkpoint import read_checkpoint
from stream.network.safetensors_file import read_safe_checkpoint, write_checkpoint
from stream.torch_network.model import load_model, trainable
from tests.stream.network import legacy

CLASSES = ("person", "bus", "Zebrastreifen")
METADATA = {"network": "yolov5n", "names": json.dumps(CLASSES)}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return legacy.save(
        legacy.Model(legacy.description("n", len(CLASSES))).half(), tmp_path_factory.mktemp("a") / "model.pt"
    )


@pytest.fixture(scope="module")
def saved(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("b") / "model.safetensors"
    state = read_checkpoint(original).state
    state.pop("model.24.anchor_grid", None)
    write_checkpoint(path, "yolov5n", CLASSES, state)
    return path


def test_gives_back_the_network(original, saved):
    ours, theirs = load_model(saved), load_model(original)
    assert (ours.names, ours.family) == (CLASSES, "yolov5")
    assert ours.weights_hash == theirs.weights_hash
    picture = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        assert torch.equal(ours.graph.forward(picture), theirs.graph.forward(picture))


def test_is_known_by_what_it_holds_whatever_it_is_called(original, saved, tmp_path):
    (tmp_path / "model.pt").write_bytes(saved.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(original.read_bytes())
    for name in ("model.pt", "model.safetensors"):
        assert load_model(tmp_path / name).weights_hash == load_model(original).weights_hash


def test_refuses_numbers_that_are_not_finite(saved, tmp_path):
    state = load_file(saved)
    state["model.3.bn.bias"][0] = float("nan")
    save_file(state, tmp_path / "other.safetensors", METADATA)
    with pytest.raises(BrokenNetwork, match=r"other\.safetensors: model\.3\.bn\.bias"):
        load_model(tmp_path / "other.safetensors")


def test_holds_no_pickle_and_half_precision_only(saved):
    assert {tensor.dtype for tensor in load_file(saved).values()} == {torch.float16, torch.int64}
    assert saved.stat().st_size < 4e6


def test_refuses_every_truncation(saved, tmp_path):
    data = saved.read_bytes()
    for size in [*range(0, 64, 7), 1000, 10_000, len(data) // 2, len(data) - 1]:
        (tmp_path / "cut.safetensors").write_bytes(data[:size])
        with pytest.raises(UnreadableCheckpoint):
            load_model(tmp_path / "cut.safetensors")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, "classes"),
        ({**METADATA, "names": "person"}, "classes"),
        ({**METADATA, "names": "[]"}, "classes"),
        ({**METADATA, "names": '[1, "b", "c"]'}, "classes"),
        ({**METADATA, "names": "[" * 100_000}, "classes"),
        ({**METADATA, "names": json.dumps(["a", "b", "c" * 201])}, "classes"),
        ({**METADATA, "names": json.dumps(["a", "b\x1b[2J", "c"])}, "classes"),
        (
            {**METADATA, "names": '["a", "\\ud800", "c"]'},
            "classes",
        ),  # half a character, which no UTF-8 can hold
        ({**METADATA, "names": '["a", "b"]'}, "do not fit"),
        ({"names": METADATA["names"]}, "network"),
        ({**METADATA, "network": "yolov5t"}, "network"),
        ({**METADATA, "network": "yolov5s"}, "do not fit"),
    ],
)
def test_refuses_what_does_not_describe_the_tensors(saved, tmp_path, metadata, message):
    save_file(load_file(saved), tmp_path / "other.safetensors", metadata)
    with pytest.raises(CheckpointError, match=message):
        load_model(tmp_path / "other.safetensors")


@pytest.mark.parametrize("change", ["missing", "extra", "shape", "no head"])
def test_refuses_other_tensors(saved, tmp_path, change):
    state = load_file(saved)
    if change == "missing":
        del state["model.3.conv.weight"]
    elif change == "extra":
        state["model.3.conv.bias"] = torch.zeros(1)
    elif change == "shape":
        state["model.3.bn.bias"] = torch.zeros(2)
    else:
        del state["model.24.anchors"]
    save_file(state, tmp_path / "other.safetensors", METADATA)
    with pytest.raises(CheckpointError):
        load_model(tmp_path / "other.safetensors")


@pytest.mark.parametrize("dtype", [torch.bool, torch.complex64, torch.float8_e4m3fn])
def test_refuses_counts_of_a_type_that_counts_nothing(saved, tmp_path, dtype):
    state = load_file(saved)
    state["model.3.bn.num_batches_tracked"] = state["model.3.bn.num_batches_tracked"].to(dtype)
    save_file(state, tmp_path / "counts.safetensors", METADATA)
    with pytest.raises(UnreadableCheckpoint, match="not floating point"):
        read_safe_checkpoint(tmp_path / "counts.safetensors")


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool, torch.float8_e4m3fn])
def test_refuses_weights_that_are_no_common_floating_point(saved, tmp_path, dtype):
    state = load_file(saved)
    state["model.3.bn.bias"] = state["model.3.bn.bias"].to(dtype)
    save_file(state, tmp_path / "other.safetensors", METADATA)
    with pytest.raises(UnreadableCheckpoint, match=r"'model\.3\.bn\.bias' is of type"):
        load_model(tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    ("count", "metadata", "message"),
    [
        (20_001, METADATA, "20001 tensors; at most 20000"),
        (1, {}, "classes"),
        (1, {"names": '["a"]'}, "network"),
    ],
)
def test_reads_no_tensor_before_the_header_is_known_to_fit(tmp_path, monkeypatch, count, metadata, message):
    path = tmp_path / "many.safetensors"
    save_file({f"model.{n}.bias": torch.zeros(0) for n in range(count)}, path, metadata)
    read: list[str] = []

    class Watched:
        def __init__(self, *arguments, **keywords):
            self._context = safe_open(*arguments, **keywords)

        def __enter__(self):
            self._file = self._context.__enter__()
            return self

        def __exit__(self, *error):
            return self._context.__exit__(*error)

        def __getattr__(self, name):
            if name.startswith("get_"):
                read.append(name)
            return getattr(self._file, name)

    monkeypatch.setattr("stream.network.safetensors_file.safe_open", Watched)
    with pytest.raises(UnreadableCheckpoint, match=message):
        read_safe_checkpoint(path)
    assert not read


def test_refuses_what_is_no_safetensors_file(original, tmp_path):
    with pytest.raises(UnreadableCheckpoint):
        read_safe_checkpoint(original)
    with pytest.raises(UnreadableCheckpoint):
        read_safe_checkpoint(tmp_path / "absent.safetensors")


def test_a_failed_write_leaves_the_file_before_it(saved, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(saved.read_bytes())
    with pytest.raises(ValueError, match=r"model\.3\.bn\.bias"):
        write_checkpoint(path, "yolov5n", CLASSES, {"model.3.bn.bias": np.array([1e30], np.float32)})
    assert path.read_bytes() == saved.read_bytes()
    assert list(tmp_path.iterdir()) == [path]


def test_a_trainable_network_has_the_anchors_and_nothing_to_load():
    network = trainable("yolov5n", CLASSES)
    assert network.modules.get_buffer("model.24.anchors")[2, 2].tolist() == [373 / 32, 326 / 32]
    assert all(parameter.requires_grad for parameter in network.modules.parameters())
    with pytest.raises(UnknownModel):
        trainable("yolov5nu", CLASSES)
