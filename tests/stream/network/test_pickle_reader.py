"""Nothing in a pickle runs, whatever it names, and following it stays cheap."""

from __future__ import annotations

import builtins
import codecs
import functools
import operator
import os
import pickle
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from stream.errors import CheckpointError, UnreadableCheckpoint, UnsafeCheckpoint
from stream.network import pickle_reader
from stream.network.checkpoint import read_checkpoint
from stream.network.network import load_network
from stream.network.pickle_reader import PickleReader
from tests.stream.network import legacy
from tests.stream.network.checkpoints import MODULE, Call, keyed, read_tensors, small_description, text, write


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_reads_newer_pickle_protocols(tmp_path, protocol):
    pickled = pickle.dumps(
        {"model": None, "x": [b"a", "b", (1, 2.5), {3: True}, {4}, frozenset({5})]}, protocol
    )
    with pytest.raises(UnreadableCheckpoint, match="no 'model' module"):
        read_checkpoint(write(tmp_path / "model.pt", pickled))


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
        load_network(write(tmp_path / "model.pt", laughing_names(60)))


def number(value: int) -> bytes:
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8b" + struct.pack("<I", len(data)) + data


PRIME = 2**61 - 1  # Python's hash of a number is its remainder


@pytest.fixture
def steps(monkeypatch) -> list[int]:
    """Grows by one number, the height of the stack, with every step of a pickle program."""
    heights: list[int] = []
    follow = PickleReader.follow

    def counted(self, opcode, argument) -> None:
        heights.append(len(self.stack))
        follow(self, opcode, argument)

    monkeypatch.setattr(PickleReader, "follow", counted)
    return heights


def test_does_not_start_on_a_long_program(tmp_path, steps):
    path = write(tmp_path / "model.pt", b"\x80\x02(" + b"}" * (5 << 20) + b"t.")
    with pytest.raises(UnreadableCheckpoint, match=r"data\.pkl is missing or larger"):
        read_checkpoint(path)
    assert not steps


@pytest.mark.parametrize("opcode", [b"}", b"]", b"\x94", b"(", b"2", b"h\x00", b"K\x00"], ids=repr)
def test_stops_a_program_of_many_steps(tmp_path, monkeypatch, steps, opcode):
    monkeypatch.setattr(pickle_reader, "MAX_STEPS", 1000)
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
    monkeypatch.setattr(pickle_reader, "MAX_STEPS", 2000)
    with pytest.raises(UnreadableCheckpoint, match="more than 2000 steps"):
        read_checkpoint(write(tmp_path / "model.pt", program + b"."))
    assert len(steps) < 1500


def test_an_official_network_leaves_room_below_the_limits(tmp_path, steps):
    model = legacy.Model(small_description())
    optimizer = torch.optim.AdamW(model.parameters())
    read_checkpoint(legacy.save(model, tmp_path / "m.pt", ema=model, optimizer=optimizer.state_dict()))
    assert len(steps) * 10 < pickle_reader.MAX_STEPS


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


@pytest.mark.parametrize("long", ["module", "name"])
def test_refuses_long_class_names_before_joining_them(tmp_path, long):
    module, name = ("models." + "m" * 10_000, "C") if long == "module" else ("models", "C" * 10_000)
    with pytest.raises(UnsafeCheckpoint) as caught:
        read_checkpoint(write(tmp_path / "model.pt", b"\x80\x04" + text(module) + text(name) + b"\x93."))
    assert len(caught.value.name) < 200
    assert len(str(caught.value)) < 1000
