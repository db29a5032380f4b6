"""A checkpoint is read as data, and damage is told apart from malice."""

from __future__ import annotations

import argparse
import collections
import datetime
import random
import sys
import types
import zipfile
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributed.algorithms.join import _JoinConfig  # which DistributedDataParallel keeps

from stream.errors import CheckpointError, UnreadableCheckpoint
from stream.network.checkpoint import read_checkpoint
from stream.network.network import load_network
from tests.stream.network import legacy
from tests.stream.network.checkpoints import MODULE, in_torch, read_tensors, small_description, text, write


def rewrite(source: Path, target: Path, change) -> Path:
    """A copy in which `change(name, data)` replaces the bytes of each member, or drops it with None."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for info in old.infolist():
            data = change(info.filename, old.read(info))
            if data is not None:
                new.writestr(info.filename, data)
    return target


def test_reads_every_tensor_as_torch_does(small):
    oracle = legacy.Model(small_description())
    checkpoint = read_checkpoint(small)
    expected = oracle.state_dict()
    assert checkpoint.state.keys() == expected.keys()
    for name, tensor in expected.items():
        assert in_torch(checkpoint.state[name]).dtype == tensor.dtype
        assert torch.equal(in_torch(checkpoint.state[name]), tensor), name
    assert checkpoint.names == ("thing 0", "thing 1")
    assert checkpoint.yaml["backbone"] == small_description()["backbone"]
    assert {record.name for record in checkpoint.activations.values()} == {"SiLU"}
    assert checkpoint.activations.keys() >= {"model.0", "model.9.cv1", "model.23.m.0.cv2"}


@pytest.mark.shared
def test_reads_the_official_file(yolov5n_weights):
    checkpoint = read_checkpoint(yolov5n_weights)
    assert checkpoint.names is not None
    assert checkpoint.names[:3] == ("person", "bicycle", "car")
    assert len(checkpoint.names) == 80
    assert checkpoint.state["model.0.conv.weight"].shape == (16, 3, 6, 6)
    assert checkpoint.state["model.0.conv.weight"].dtype == np.float16
    learned = [value for name, value in checkpoint.state.items() if name.endswith(("weight", "bias"))]
    assert sum(value.size for value in learned) == 1_872_157  # as the release notes say: 1.9 M


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_reads_every_precision(tmp_path, dtype):
    model = legacy.Model(small_description()).to(dtype)
    state = read_checkpoint(legacy.save(model, tmp_path / "model.pt")).state
    expected = model.model[0].conv.weight
    stored = in_torch(state["model.0.conv.weight"])
    assert torch.equal(stored, expected.float() if dtype == torch.bfloat16 else expected)


def test_reads_views_of_one_storage(tmp_path):
    model = legacy.Model(small_description())
    shared = torch.arange(100.0)
    model.register_buffer("rows", shared.view(10, 10)[2:4])
    model.register_buffer("column", shared.view(10, 10)[:, 3])
    model.register_buffer("turned", shared.view(10, 10).t())
    model.register_buffer("none", torch.empty(0, 3))
    model.register_buffer("one", torch.tensor(7.0))
    state = read_checkpoint(legacy.save(model, tmp_path / "model.pt")).state
    for name in ("rows", "column", "turned", "none", "one"):
        assert torch.equal(in_torch(state[name]), getattr(model, name)), name


def test_prefers_averaged_weights(tmp_path):
    model, averaged = (legacy.Model(small_description(), seed) for seed in (1, 2))
    state = read_checkpoint(legacy.save(model, tmp_path / "model.pt", ema=averaged)).state
    assert torch.equal(in_torch(state["model.0.conv.weight"]), averaged.model[0].conv.weight)


class Wrapper(nn.Module):
    """As AutoShape, DetectMultiBackend and ModelEMA hold a network."""

    def __init__(self, **held: object) -> None:
        super().__init__()
        for name, module in held.items():
            setattr(self, name, module)


Wrapper.__module__ = "models.common"


def saved_with(path: Path, make_root) -> Path:
    """A file of what `make_root` makes of a network whose classes pickle as the original's."""
    legacy.save(model := legacy.Model(small_description()), path)  # names the classes' modules
    common = types.ModuleType("models.common")
    for kind in (legacy.Conv, legacy.Bottleneck, legacy.C3, legacy.SPPF, legacy.Concat, Wrapper):
        setattr(common, kind.__name__, kind)
    yolo = types.ModuleType("models.yolo")
    yolo.Detect, yolo.Model = legacy.Detect, legacy.Model
    stubs = {"models": types.ModuleType("models"), "models.common": common, "models.yolo": yolo}
    with patch.dict(sys.modules, stubs):
        torch.save(make_root(model), path)
    return path


@pytest.mark.parametrize(
    "make_root",
    [
        lambda model: model,
        lambda model: {"model": nn.DataParallel(model)},
        nn.DataParallel,
        lambda model: {"model": Wrapper(module=model, config=_JoinConfig(True, False, True))},
        lambda model: {"model": Wrapper(model=Wrapper(model=model))},
        lambda model: {"ema": Wrapper(ema=model), "model": None},
    ],
    ids=["bare", "data parallel", "bare data parallel", "distributed", "auto shape", "averaged"],
)
def test_finds_the_network_in_what_is_put_around_it(tmp_path, make_root):
    oracle = legacy.Model(small_description())
    checkpoint = read_checkpoint(saved_with(tmp_path / "model.pt", make_root))
    assert checkpoint.names == ("thing 0", "thing 1")
    assert checkpoint.state.keys() == oracle.state_dict().keys()
    assert checkpoint.activations.keys() >= {"model.0", "model.9.cv1"}


def test_a_wrapper_that_contains_itself_ends(tmp_path):
    program = b"}" + text("model") + MODULE + b"q\x01}" + text("module") + b"h\x01sbs."
    with pytest.raises(UnreadableCheckpoint, match="lacks the description"):
        read_checkpoint(write(tmp_path / "model.pt", program))


def test_a_bare_state_dict_is_named(tmp_path):
    state = legacy.Model(small_description()).state_dict()
    for root in (state, {"state_dict": state}, {f"module.{name}": value for name, value in state.items()}):
        torch.save(root, tmp_path / "model.pt")
        with pytest.raises(UnreadableCheckpoint, match=r"model\.pt: a bare state dict: .* torch\.save"):
            read_checkpoint(tmp_path / "model.pt")


def test_reads_what_training_leaves_in_a_file(tmp_path):
    model = legacy.Model(small_description())
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    extras = {
        "optimizer": optimizer.state_dict(),
        "best_fitness": np.array([0.25]),
        "fitness": np.float64(0.5),
        "opt": argparse.Namespace(data=Path("coco.yaml"), hyp=collections.OrderedDict(lr0=0.01)),
        "date": datetime.datetime(2022, 1, 1, tzinfo=datetime.UTC),
        "seen": {1, 2, 3},
        "count": collections.Counter("abc"),
        "groups": collections.defaultdict(list, a=[1]),
        "device": torch.device("cuda:0"),
        "size": torch.Size([1, 2]),
        "by_class": {np.int64(3): np.float32(0.5), 1.0: "one"},
        "big": 1 << 200,
    }
    read_checkpoint(legacy.save(model, tmp_path / "model.pt", **extras))


def test_does_not_read_what_it_does_not_need(small, tmp_path):
    averaged = legacy.Model(small_description())
    whole = legacy.save(legacy.Model(small_description()), tmp_path / "a.pt", ema=averaged)
    assert read_checkpoint(whole).state.keys() == read_checkpoint(small).state.keys()


def test_refuses_weights_that_grow_in_memory(tmp_path):
    everything = (0, (250_000,), (1,))
    with pytest.raises(UnreadableCheckpoint, match="more weights than the file holds"):
        read_tensors(tmp_path / "model.pt", *[everything] * 20, size=1_000_000, elements=250_000)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UnreadableCheckpoint, match=r"no checkpoint at .*absent\.pt"):
        read_checkpoint(tmp_path / "absent.pt")


@pytest.mark.parametrize(
    "root",
    [
        None,
        [],
        {},
        {"model": None},
        {"model": {"a.weight": 1}},
        {"model": {"a.weight": torch.zeros(1)}},
        {"module.a.weight": torch.zeros(1)},
        {"model": nn.Conv2d(1, 1, 1)},
        nn.Conv2d(1, 1, 1),
        {(1, 2): 3},
        {"ema": 5, "model": 6},
    ],
)
def test_refuses_pickles_of_something_else(tmp_path, root):
    torch.save(root, tmp_path / "model.pt")
    with pytest.raises(UnreadableCheckpoint):
        read_checkpoint(tmp_path / "model.pt")


def test_refuses_every_truncation(small, tmp_path):
    data = small.read_bytes()
    path = tmp_path / "model.pt"
    lengths = {*range(0, len(data), len(data) // 150), *range(len(data) - 60, len(data))}
    for length in sorted(lengths):
        path.write_bytes(data[:length])
        with pytest.raises(UnreadableCheckpoint):
            read_checkpoint(path)


@pytest.mark.parametrize("member", ["data.pkl", "data/0", "data/17"])
@pytest.mark.parametrize("missing", [1, 8])
def test_refuses_a_member_cut_short(small, tmp_path, member, missing):
    def cut(name: str, data: bytes) -> bytes:
        return data[:-missing] if name.endswith(member) else data

    with pytest.raises(UnreadableCheckpoint):
        read_checkpoint(rewrite(small, tmp_path / "model.pt", cut))


def survives(path: Path, read) -> bool:
    """Whether damaged bytes were still read; anything but a CheckpointError fails the test."""
    try:
        read(path)
    except CheckpointError:
        return False
    return True


def test_damaged_files_are_refused_or_read(small, tmp_path):
    data = small.read_bytes()
    chance = random.Random(0)
    path = tmp_path / "model.pt"
    outcomes = set()
    for _ in range(150):
        damaged = bytearray(data)
        for _ in range(chance.choice((1, 1, 3, 50))):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged)
        outcomes.add(survives(path, read_checkpoint))
    assert False in outcomes


def test_damaged_pickles_are_refused_or_built(small, tmp_path):
    # The zip's checksum is made right again, so that the damage reaches the interpreter and the builder.
    chance = random.Random(0)
    outcomes = set()
    for _ in range(80):

        def damage(name: str, data: bytes) -> bytes:
            if not name.endswith("data.pkl"):
                return data
            damaged = bytearray(data)
            for _ in range(chance.choice((1, 2, 10))):
                # Most of the interesting opcodes stand near the end, where the network is described.
                start = chance.choice((0, len(data) - 3000))
                damaged[chance.randrange(start, len(data))] = chance.randrange(256)
            return bytes(damaged)

        outcomes.add(survives(rewrite(small, tmp_path / "model.pt", damage), load_network))
    assert outcomes == {True, False}


@pytest.mark.parametrize("table", ["_modules", "_parameters", "_buffers"])
def test_refuses_long_names_before_joining_them(tmp_path, table):
    """A module with a long name in it, held by a chain in which each module holds the one before twice."""
    program = b"}(" + text("n" * 10_000) + MODULE + b"uq\x000"
    program += MODULE + b"}" + text(table) + b"h\x00sbq\x010"
    for index in range(1, 12):
        child = b"h" + bytes([index])
        children = b"}(" + text("0") + child + text("1") + child + b"u"
        program += MODULE + b"}" + text("_modules") + children + b"sbq" + bytes([index + 1]) + b"0"
    with pytest.raises(UnreadableCheckpoint, match="names too long"):
        read_checkpoint(write(tmp_path / "model.pt", program + b"}" + text("model") + b"h\x0cs."))


@pytest.mark.parametrize(
    "names",
    [["a"] * 5000, ["a" * 300], [1 << 100], {0: "a" * 300}],
    ids=["many", "long", "number", "by index"],
)
def test_refuses_class_names_that_grow(tmp_path, names):
    model = legacy.Model(small_description())
    model.names = names
    with pytest.raises(UnreadableCheckpoint, match="too many classes, or names too long"):
        read_checkpoint(legacy.save(model, tmp_path / "model.pt"))


def test_a_file_that_may_not_be_read_is_no_damage(tmp_path):
    with pytest.raises(UnreadableCheckpoint, match=f"^{tmp_path} cannot be read: Is a directory$"):
        read_checkpoint(tmp_path)


def test_damage_is_told_in_few_words(tmp_path):
    with pytest.raises(UnreadableCheckpoint) as caught:
        read_checkpoint(write(tmp_path / "model.pt", b"I" + b"x" * 100_000 + b"\n."))
    assert len(str(caught.value)) < 1000
