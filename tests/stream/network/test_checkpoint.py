"""A checkpoint is read as data: nothing in it runs, and damage is told apart from malice."""

from __future__ import annotations

import argparse
import builtins
import codecs
import collections
import datetime
import functools
import io
import operator
import os
import pickle
import random
import struct
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from stream.errors import CheckpointError, UnreadableCheckpoint, UnsafeCheckpoint, UnsupportedLayer
from stream.network import architecture, checkpoint
from stream.network.checkpoint import Checkpoint, read_checkpoint
from stream.network.model import load_model
from tests.stream.network import legacy


def small_description() -> dict:
    """A network of the right shape and few weights, for tests that read it many times."""
    return {**legacy.description("n", classes=2), "width_multiple": 0.01}


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "small.pt"
    return legacy.save(legacy.Model(small_description()), path)


def write(path: Path, pickled: bytes, storages: dict[str, bytes] | None = None, **records: bytes) -> Path:
    """A zip file with the members of a checkpoint."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        for key, data in (storages or {}).items():
            archive.writestr(f"archive/data/{key}", data)
        for name, data in records.items():
            archive.writestr(f"archive/{name}", data)
    return path


def rewrite(source: Path, target: Path, change) -> Path:
    """A copy in which `change(name, data)` replaces the bytes of each member, or drops it with None."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for info in old.infolist():
            data = change(info.filename, old.read(info))
            if data is not None:
                new.writestr(info.filename, data)
    return target


# --- what is read ---


def test_reads_every_tensor_as_torch_does(small):
    oracle = legacy.Model(small_description())
    checkpoint = read_checkpoint(small)
    expected = oracle.state_dict()
    assert checkpoint.state.keys() == expected.keys()
    for name, tensor in expected.items():
        assert checkpoint.state[name].dtype == tensor.dtype
        assert torch.equal(checkpoint.state[name], tensor), name
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
    assert checkpoint.state["model.0.conv.weight"].dtype == torch.float16
    learned = [value for name, value in checkpoint.state.items() if name.endswith(("weight", "bias"))]
    assert sum(value.numel() for value in learned) == 1_872_157  # as the release notes say: 1.9 M


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_reads_every_precision(tmp_path, dtype):
    model = legacy.Model(small_description()).to(dtype)
    state = read_checkpoint(legacy.save(model, tmp_path / "model.pt")).state
    assert torch.equal(state["model.0.conv.weight"], model.model[0].conv.weight)


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
        assert torch.equal(state[name], getattr(model, name)), name


def test_prefers_averaged_weights(tmp_path):
    model, averaged = (legacy.Model(small_description(), seed) for seed in (1, 2))
    state = read_checkpoint(legacy.save(model, tmp_path / "model.pt", ema=averaged)).state
    assert torch.equal(state["model.0.conv.weight"], averaged.model[0].conv.weight)


def test_reads_what_training_leaves_in_a_file(tmp_path):
    model = legacy.Model(small_description())
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    extras = {
        "optimizer": optimizer.state_dict(),
        "best_fitness": np.array([0.25]),
        "fitness": np.float64(0.5),
        "opt": argparse.Namespace(data=Path("coco.yaml"), hyp=collections.OrderedDict(lr0=0.01)),
        "date": datetime.datetime(2022, 1, 1),
        "seen": {1, 2, 3},
        "count": collections.Counter("abc"),
        "groups": collections.defaultdict(list, a=[1]),
        "device": torch.device("cuda:0"),
        "size": torch.Size([1, 2]),
        "big": 1 << 200,
    }
    read_checkpoint(legacy.save(model, tmp_path / "model.pt", **extras))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_reads_newer_pickle_protocols(tmp_path, protocol):
    pickled = pickle.dumps(
        {"model": None, "x": [b"a", "b", (1, 2.5), {3: True}, {4}, frozenset({5})]}, protocol
    )
    with pytest.raises(UnreadableCheckpoint, match="no 'model' module"):
        read_checkpoint(write(tmp_path / "model.pt", pickled))


def test_does_not_read_what_it_does_not_need(small, tmp_path):
    averaged = legacy.Model(small_description())
    whole = legacy.save(legacy.Model(small_description()), tmp_path / "a.pt", ema=averaged)
    assert read_checkpoint(whole).state.keys() == read_checkpoint(small).state.keys()


# --- what is refused as unsafe ---


class Call:
    """Pickles as a call of any function, which an ordinary loader would make."""

    def __init__(self, function, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def attacks(marker: Path) -> dict[str, object]:
    command = f"touch {marker}"
    code = f"open({str(marker)!r}, 'w')"
    return {
        "posix.system": Call(os.system, command),
        "builtins.eval": Call(builtins.eval, code),
        "builtins.exec": Call(builtins.exec, code),
        "builtins.getattr": Call(getattr, "x", "upper"),
        "builtins.open": Call(open, str(marker), "w"),
        "builtins.__import__": Call(__import__, "os"),
        "subprocess.Popen": Call(subprocess.Popen, ["touch", str(marker)]),
        "functools.partial": functools.partial(print, command),
        "_operator.attrgetter": operator.attrgetter("x"),
        "torch.serialization.load": Call(torch.load, str(marker)),
        "torch.hub.load": Call(torch.hub.load, "x", "y"),
        "codecs.open": Call(codecs.open, str(marker), "w"),
        "numpy.load": Call(np.load, str(marker)),
    }


@pytest.mark.parametrize("name", attacks(Path("x")))
@pytest.mark.parametrize("place", ["root", "model", "beside", "inside", "key"])
@pytest.mark.parametrize("protocol", [2, 4])
def test_refuses_calls_by_name_and_runs_nothing(tmp_path, name, place, protocol):
    marker = tmp_path / "executed"
    attack = attacks(marker)[name]
    harmless = nn.Module()
    harmless.extra = attack
    root = {
        "root": attack,
        "model": {"model": attack},
        "beside": {"model": nn.Module(), "optimizer": [attack]},
        "inside": {"model": harmless},
        "key": {"model": nn.Module(), "x": {1: {"deep": (attack,)}}},
    }[place]
    path = write(tmp_path / "model.pt", pickle.dumps(root, protocol))
    with pytest.raises(UnsafeCheckpoint) as caught:
        read_checkpoint(path)
    assert caught.value.name.split(".")[-1] in str(caught.value)
    assert "may be malicious" in str(caught.value)
    assert not marker.exists()


@pytest.mark.parametrize(
    "program",
    [
        b"cos\nsystem\n(S'touch executed'\ntR.",
        b"(S'touch executed'\nios\nsystem\n.",
        b"(cos\nsystem\nS'touch executed'\no.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0etouch executed\x85R.",
        b"\x80\x02ctorch.nn\nx\n)\x81(cos\nsystem\nS'a'\ntb.",
        b"cmodels\n..os.system\n(S'touch executed'\ntR.",
        b"cbuiltins\ngetattr\n(cos\npath\nS'x'\ntR.",
        b"\x82\x01.",
        b"Pos.system\n.",
    ],
)
def test_handwritten_programs_do_nothing(tmp_path, monkeypatch, program):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError):
        read_checkpoint(write(tmp_path / "model.pt", program))
    assert not Path("executed").exists()


def test_an_allowed_class_is_not_imported_or_built(tmp_path):
    # ultralytics' own names are allowed, yet only as names.
    program = (
        b"\x80\x02}X\x05\x00\x00\x00modelcultralytics.utils.downloads\nsafe_download\n(X\x01\x00\x00\x00xtRs."
    )
    with pytest.raises(UnreadableCheckpoint, match="yaml"):
        read_checkpoint(write(tmp_path / "model.pt", program))


# --- what is refused as damaged ---


class Storage:
    """Stands for a tensor storage in a handmade pickle."""

    def __init__(self, *reference) -> None:
        self.reference = reference


def pickled_tensors(*tensors: tuple, key: str = "0", elements: object = 4) -> bytes:
    """A checkpoint's pickle whose model has buffers made by `_rebuild_tensor_v2(storage, *tensor)`."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):
            return obj.reference if isinstance(obj, Storage) else None

    module = nn.Module()
    module.yaml = {"nc": 1}
    storage = Storage("storage", torch.FloatStorage, key, "cpu", elements)
    for index, (offset, shape, stride) in enumerate(tensors):
        call = Call(
            torch._utils._rebuild_tensor_v2, storage, offset, shape, stride, False, collections.OrderedDict()
        )
        module._buffers[f"b{index}"] = call
    stream = io.BytesIO()
    Pickler(stream, 2).dump({"model": module})
    return stream.getvalue()


def read_tensors(path: Path, *tensors: tuple, size: int = 16, **declared) -> Checkpoint:
    return read_checkpoint(write(path, pickled_tensors(*tensors, **declared), {"0": bytes(size)}))


def test_the_handmade_tensor_is_good_when_true(tmp_path):
    state = read_tensors(tmp_path / "m.pt", (0, (2, 2), (2, 1)), (3, (1,), (9,)), (4, (0, 5), (1, 1))).state
    assert [tuple(tensor.shape) for tensor in state.values()] == [(2, 2), (1,), (0, 5)]


@pytest.mark.parametrize(
    "tensor",
    [
        (0, (5,), (1,)),
        (1, (4,), (1,)),
        (4, (1,), (1,)),
        (-1, (1,), (1,)),
        (0, (2, 2), (3, 1)),
        (0, (-1,), (1,)),
        (3, (2,), (-1,)),
        (0, (1 << 40, 1 << 40), (0, 0)),
        (0, (1 << 70,), (0,)),
        (0, (2, 2), (1,)),
        (0, (1,) * 100, (1,) * 100),
        (0, (2.0,), (1,)),
        (0, "ab", "cd"),
        (True, (1,), (1,)),
        (None, None, None),
    ],
)
def test_refuses_tensors_outside_their_storage(tmp_path, tensor):
    with pytest.raises(UnreadableCheckpoint, match="inside its storage"):
        read_tensors(tmp_path / "model.pt", tensor)


@pytest.mark.parametrize("elements", [5, 3, 0, -4, 1 << 50, 4.0, "4", None])
def test_refuses_storages_of_another_size(tmp_path, elements):
    with pytest.raises(UnreadableCheckpoint, match=r"declared size|persistent id"):
        read_tensors(tmp_path / "model.pt", (0, (1,), (1,)), elements=elements)


@pytest.mark.parametrize("key", ["1", "", "../data.pkl", "/etc/passwd", 0, None])
def test_refuses_storages_that_are_not_there(tmp_path, key):
    with pytest.raises(UnreadableCheckpoint):
        read_tensors(tmp_path / "model.pt", (0, (1,), (1,)), key=key)


def test_refuses_weights_that_grow_in_memory(tmp_path):
    everything = (0, (250_000,), (1,))
    with pytest.raises(UnreadableCheckpoint, match="more weights than the file holds"):
        read_tensors(tmp_path / "model.pt", *[everything] * 20, size=1_000_000, elements=250_000)


def test_refuses_compressed_files(small, tmp_path):
    with zipfile.ZipFile(small) as old, zipfile.ZipFile(tmp_path / "m.pt", "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            new.writestr(info.filename, old.read(info))
    with pytest.raises(UnreadableCheckpoint, match="compressed"):
        read_checkpoint(tmp_path / "m.pt")


def test_refuses_overlapping_members(tmp_path):
    path = write(tmp_path / "model.pt", b"N.", {str(index): bytes(1000) for index in range(50)})
    data = bytearray(path.read_bytes())
    start = data.index(b"PK\x01\x02")
    position, first = start, None
    while (position := data.find(b"PK\x01\x02", position)) >= 0:
        if b"data/0" in data[position + 46 : position + 70]:
            first = data[position + 42 : position + 46]
        elif first is not None:
            data[position + 42 : position + 46] = first  # every storage begins where the first does
        position += 4
    path.write_bytes(bytes(data[:1200] + data[start:]))
    with pytest.raises(UnreadableCheckpoint):
        read_checkpoint(path)


def test_refuses_big_endian_files(tmp_path):
    with pytest.raises(UnreadableCheckpoint, match="big-endian"):
        read_checkpoint(write(tmp_path / "model.pt", b"N.", byteorder=b"big"))


def test_refuses_torchscript(tmp_path):
    with pytest.raises(UnreadableCheckpoint, match="TorchScript"):
        read_checkpoint(write(tmp_path / "model.pt", b"N.", **{"constants.pkl": b"N."}))


def test_refuses_other_zip_files(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(UnreadableCheckpoint, match="not a PyTorch checkpoint"):
        read_checkpoint(tmp_path / "a.zip")


@pytest.mark.parametrize("content", [b"", b"<html>", b"PK\x03\x04", bytes(1000)])
def test_refuses_files_that_are_not_zip(tmp_path, content):
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(UnreadableCheckpoint, match="not a whole PyTorch zip checkpoint"):
        read_checkpoint(tmp_path / "model.pt")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UnreadableCheckpoint, match=r"no checkpoint at .*absent\.pt"):
        read_checkpoint(tmp_path / "absent.pt")
    with pytest.raises(UnreadableCheckpoint):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "root",
    [
        None,
        [],
        {},
        {"model": None},
        {"model": {"a.weight": 1}},
        {"model": nn.Conv2d(1, 1, 1)},
        {(1, 2): 3},
        {"ema": 5, "model": 6},
    ],
)
def test_refuses_pickles_of_something_else(tmp_path, root):
    torch.save(root, tmp_path / "model.pt")
    with pytest.raises(UnreadableCheckpoint):
        read_checkpoint(tmp_path / "model.pt")


def deep_tuple(levels: int) -> bytes:
    return b"\x80\x02}" + b")" + b"\x85" * levels + b"Ns."


def deep_list(levels: int) -> bytes:
    return b"\x80\x02" + b"]" * levels + b"a" * (levels - 1) + b"."


def laughing_names(levels: int) -> bytes:
    """A model whose list of names, printed, would fill the universe."""
    lists = b"]q\x00N0" + b"".join(
        b"]" + b"h" + bytes([i]) + b"a" + b"h" + bytes([i]) + b"aq" + bytes([i + 1]) + b"0"
        for i in range(levels)
    )
    return (
        b"\x80\x02"
        + lists.replace(b"]q\x00N0", b"]q\x000")
        + b"}X\x05\x00\x00\x00modelctorch.nn\nM\n)\x81}(X\x05\x00\x00\x00namesh"
        + bytes([levels])
        + b"X\x04\x00\x00\x00yaml}X\x02\x00\x00\x00nch"
        + bytes([levels])
        + b"subs."
    )


def circle() -> bytes:
    """A module that is its own child."""
    child = b"X\x08\x00\x00\x00_modules}X\x01\x00\x00\x00ah\x00ss"
    return b"\x80\x02}X\x05\x00\x00\x00modelctorch.nn\nM\n)\x81q\x00}" + child + b"bs."


def tree(levels: int) -> bytes:
    """A module with two children that are the same, each with two that are the same, and so on."""
    build = b"ctorch.nn\nM\n)\x81q\x00" + b"".join(
        b"ctorch.nn\nM\n)\x81}X\x08\x00\x00\x00_modules}(X\x01\x00\x00\x00ah"
        + bytes([i])
        + b"X\x01\x00\x00\x00bh"
        + bytes([i])
        + b"usbq"
        + bytes([i + 1])
        for i in range(levels)
    )
    return b"\x80\x02" + build + b"}X\x05\x00\x00\x00modelh" + bytes([levels]) + b"s."


@pytest.mark.parametrize(
    "program",
    [
        deep_tuple(200_000),
        deep_list(200_000),
        circle(),
        tree(60),
        b"",
        b".",
        b"N",
        b"0.",
        b"a.",
        b"s.",
        b"u.",
        b"R.",
        b"b.",
        b"t.",
        b"h\x05.",
        b"j\xff\xff\xff\xff.",
        b"((((",
        b"(t(tNN.",
        b"NNa.",
        b"]NNs.",
        b"NQ.",
        b"\x80\x02X\xff\xff\xff\xffa.",
        b"\x8a\xff.",
        b"\x8b\xff\xff\xff\x7f.",
        b"I" + b"9" * 100_000 + b"\n.",
        b"\xff\xff\xff",
        b"]]s.",
        b"}]Ns.",
        b"Nb.",
        b"NN\x93.",
        b"ctorch.nn\nM\nN\x81.",
    ],
    ids=lambda program: repr(program[:12]),
)
def test_refuses_nonsense_programs(tmp_path, program):
    with pytest.raises(UnreadableCheckpoint):
        read_checkpoint(write(tmp_path / "model.pt", program))


def test_refuses_names_that_would_print_forever(tmp_path):
    with pytest.raises(CheckpointError):
        load_model(write(tmp_path / "model.pt", laughing_names(60)))


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

        outcomes.add(survives(rewrite(small, tmp_path / "model.pt", damage), load_model))
    assert outcomes == {True, False}


def test_zip_of_declared_size_only(small, tmp_path):
    """A member whose directory entry declares four gigabytes is refused before they are allocated."""
    data = bytearray(small.read_bytes())
    position = data.rindex(b"PK\x01\x02")
    data[position + 20 : position + 28] = struct.pack("<II", 0xFFFFFFF0, 0xFFFFFFF0)
    (tmp_path / "model.pt").write_bytes(data)
    with pytest.raises(UnreadableCheckpoint):
        read_checkpoint(tmp_path / "model.pt")


# --- what is refused because reading it would cost too much ---


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value: int) -> bytes:
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8b" + struct.pack("<I", len(data)) + data


def keyed(count: int, key) -> bytes:
    """A dictionary of None by `key(0)`, `key(1)`, ..."""
    return b"}(" + b"".join(key(index) + b"N" for index in range(count)) + b"u"


MODULE = b"cmodels.common\nConv\n)R"
PRIME = 2**61 - 1  # Python's hash of a number is its remainder


@pytest.fixture
def steps(monkeypatch) -> list[int]:
    """Grows by one number, the height of the stack, with every step of a pickle program."""
    heights: list[int] = []
    step = checkpoint._Interpreter._step

    def counted(self, opcode, argument) -> None:
        heights.append(len(self._stack))
        step(self, opcode, argument)

    monkeypatch.setattr(checkpoint._Interpreter, "_step", counted)
    return heights


def test_does_not_start_on_a_long_program(tmp_path, steps):
    path = write(tmp_path / "model.pt", b"\x80\x02(" + b"}" * (5 << 20) + b"t.")
    with pytest.raises(UnreadableCheckpoint, match=r"data\.pkl is missing or larger"):
        read_checkpoint(path)
    assert not steps


@pytest.mark.parametrize("opcode", [b"}", b"]", b"\x94", b"(", b"2", b"h\x00", b"K\x00"], ids=repr)
def test_stops_a_program_of_many_steps(tmp_path, monkeypatch, steps, opcode):
    monkeypatch.setattr(checkpoint, "_MAX_STEPS", 1000)
    program = b"\x80\x02Nq\x00" + opcode * 3000 + b"."
    with pytest.raises(UnreadableCheckpoint, match="more than 1000 steps"):
        read_checkpoint(write(tmp_path / "model.pt", program))
    assert len(steps) == 1000
    assert max(steps) <= 1000


@pytest.mark.parametrize(
    "program",
    [
        b"("
        + b"".join(text(str(i)) + b"N\x86" for i in range(300))
        + b"l\x85q\x00"
        # OrderedDict(the same pairs), again and again
        + b"ccollections\nOrderedDict\nq\x01"
        + b"h\x01h\x00R" * 5,
        keyed(300, lambda i: text(str(i))) + b"q\x00" + (MODULE + b"h\x00b") * 5,
        b"(" + b"N" * 300 + b"tq\x00" + (MODULE + b"h\x00b") * 10,
    ],
    ids=["pairs", "attributes", "parts"],
)
def test_counts_what_a_step_copies(tmp_path, monkeypatch, steps, program):
    monkeypatch.setattr(checkpoint, "_MAX_STEPS", 2000)
    with pytest.raises(UnreadableCheckpoint, match="more than 2000 steps"):
        read_checkpoint(write(tmp_path / "model.pt", program + b"."))
    assert len(steps) < 1500


def test_an_official_network_leaves_room_below_the_limits(tmp_path, steps):
    model = legacy.Model(small_description())
    optimizer = torch.optim.AdamW(model.parameters())
    read_checkpoint(legacy.save(model, tmp_path / "m.pt", ema=model, optimizer=optimizer.state_dict()))
    assert len(steps) * 10 < checkpoint._MAX_STEPS


@pytest.mark.parametrize(
    ("dictionary", "reason"),
    [
        (keyed(100, lambda i: number(PRIME * (i + 1))), "31 bits"),
        (keyed(1, lambda _: number(1 << 31)), "31 bits"),
        (keyed(1, lambda _: number(-(1 << 31))), "31 bits"),
        (keyed(1, lambda _: b"G" + struct.pack(">d", 2.0**61)), "key of type float"),
        (keyed(1, lambda _: b")"), "key of type tuple"),
        (keyed(1, lambda _: b"C\x01a"), "key of type bytes"),
        (b"(" + number(PRIME) + b"Nd", "31 bits"),
        (b"}" + number(PRIME) + b"Ns", "31 bits"),
        (b"ccollections\nOrderedDict\n](" + number(PRIME) + b"N\x86e\x85R", "31 bits"),
        (b"ccollections\nOrderedDict\n](" + b")" + b"\x85" * 100 + b"N\x86e\x85R", "key of type tuple"),
        (b"Np%d\n" % PRIME, "numbers its values"),
        (b"Np-1\n", "numbers its values"),
    ],
)
def test_refuses_keys_that_hash_badly(tmp_path, dictionary, reason):
    with pytest.raises(UnreadableCheckpoint, match=reason):
        read_checkpoint(write(tmp_path / "model.pt", b"\x80\x02" + dictionary + b"."))


def test_reads_the_keys_that_models_use(tmp_path):
    odd = {0: "a", (1 << 31) - 1: "b", True: "c", None: "d", "e": "e"}
    assert read_checkpoint(legacy.save(legacy.Model(small_description()), tmp_path / "m.pt", odd=odd)).state


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


@pytest.mark.parametrize("long", ["module", "name"])
def test_refuses_long_class_names_before_joining_them(tmp_path, long):
    module, name = ("models." + "m" * 10_000, "C") if long == "module" else ("models", "C" * 10_000)
    with pytest.raises(UnsafeCheckpoint) as caught:
        read_checkpoint(write(tmp_path / "model.pt", b"\x80\x04" + text(module) + text(name) + b"\x93."))
    assert len(caught.value.name) < 200
    assert len(str(caught.value)) < 1000


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


def test_refuses_a_long_list_of_members_before_parsing_it(tmp_path, monkeypatch):
    path = write(tmp_path / "model.pt", b"N.", {str(index): b"" for index in range(100)})
    monkeypatch.setattr(checkpoint, "_MAX_DIRECTORY_BYTES", 1000)
    monkeypatch.setattr(zipfile, "ZipInfo", None)
    with pytest.raises(UnreadableCheckpoint, match="list of members is longer"):
        read_checkpoint(path)


def test_refuses_members_of_two_sizes(small, tmp_path):
    """Otherwise each of many small members could have the rest of the file read for it."""
    data = bytearray(small.read_bytes())
    position = data.rindex(b"PK\x01\x02")
    data[position + 20 : position + 24] = struct.pack("<I", len(data))
    (tmp_path / "model.pt").write_bytes(data)
    with pytest.raises(UnreadableCheckpoint, match="two sizes"):
        read_checkpoint(tmp_path / "model.pt")


def test_damage_is_told_in_few_words(tmp_path):
    with pytest.raises(UnreadableCheckpoint) as caught:
        read_checkpoint(write(tmp_path / "model.pt", b"I" + b"x" * 100_000 + b"\n."))
    assert len(str(caught.value)) < 1000


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
    ],
)
def test_refuses_networks_that_would_grow(monkeypatch, rows, reason):
    repeats: list[int] = []

    def counted(c1: int, c2: int, n: int) -> nn.Module:
        repeats.append(n)
        return nn.Identity()

    monkeypatch.setattr(architecture, "C3", counted)
    yaml = {"nc": 80, "depth_multiple": 1.0, "width_multiple": 1.0, "backbone": rows, "head": []}
    with torch.device("meta"), pytest.raises(UnreadableCheckpoint, match=reason):
        architecture.build_layers(yaml, lambda classes, channels: nn.Identity())
    assert sum(repeats) <= 128


def test_refuses_repeats_that_the_depth_multiplies():
    yaml = {"nc": 80, "depth_multiple": 10.0, "width_multiple": 1.0, "backbone": [CONV, C3], "head": []}
    with torch.device("meta"), pytest.raises(UnreadableCheckpoint, match=r"repeated 16 times at depth 10\.0"):
        architecture.build_layers(yaml, lambda classes, channels: nn.Identity())


def test_refuses_a_scale_too_deep_to_hash(tmp_path):
    yaml = (
        keyed(1, lambda _: text("n")).join([b"}(" + text("scales"), text("scale")]) + b")" + b"\x85" * 200_000
    )
    model = MODULE + b"}(" + text("yaml") + yaml + b"u" + text("_buffers") + b"}ub"
    program = b"\x80\x02}" + text("model") + model + b"s."
    yaml_read = read_checkpoint(write(tmp_path / "model.pt", program)).yaml
    with pytest.raises(UnreadableCheckpoint, match="not a letter"):
        architecture.build_layers(yaml_read, lambda classes, channels: nn.Identity())


@pytest.mark.parametrize("scale", architecture.SCALES)
def test_official_networks_are_within_the_bounds(scale):
    with torch.device("meta"):
        layers = architecture.build_layers(
            architecture.description(scale), lambda classes, channels: nn.Identity()
        )
    assert len(layers) == 25


# --- what is refused because the network is another ---


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
        load_model(legacy.save(model, tmp_path / "model.pt"))
    assert caught.value.name.startswith(name)


@pytest.mark.parametrize(
    "change",
    [
        {"nc": 3},
        {"nc": -1},
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
        load_model(legacy.save(model, tmp_path / "model.pt"))


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
