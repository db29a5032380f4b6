"""Class names are read in whatever form a training script has left them."""

from __future__ import annotations

import collections
import types
from pathlib import Path

import numpy as np
import pytest

from stream.errors import UnreadableCheckpoint
from stream.network.checkpoint import read_checkpoint
from tests.stream.network import legacy
from tests.stream.network.checkpoints import small_description


def read_names(path: Path, names: object, /, **others: object) -> tuple[str | None, ...] | None:
    model = legacy.Model(small_description())
    model.names = names
    if names is None:
        del model.names
    return read_checkpoint(legacy.save(model, path / "model.pt", **others)).names


@pytest.mark.parametrize(
    "names",
    [
        ["cat", "dog"],
        ("cat", "dog"),
        {0: "cat", 1: "dog"},
        {1: "dog", 0: "cat"},
        {"0": "cat", "1": "dog"},
        {0.0: "cat", 1.0: "dog"},
        {np.int64(1): "dog", np.int64(0): "cat"},
        {"dog": 1, "cat": 0},
        {"dog": np.int32(1), "cat": np.int32(0)},
        collections.OrderedDict([(0, "cat"), (1, "dog")]),
        collections.defaultdict(str, {0: "cat", 1: "dog"}),
        np.array(["cat", "dog"]),
        np.array(["cat", "dog"], ">U3"),
        np.array(["cat", "dog"], object),
        np.array([b"cat", b"dog"]),
        [np.str_("cat"), np.str_("dog")],
        {0: np.str_("cat"), 1: b"dog"},
        [b"cat", b"dog"],
        [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
    ],
    ids=repr,
)
def test_reads_every_form(tmp_path, names):
    assert read_names(tmp_path, names) == ("cat", "dog")


@pytest.mark.parametrize(
    ("names", "read"),
    [
        ([1, 2.5], ("1", "2.5")),
        (np.array([3, 4]), ("3", "4")),
        ({0: "cat", 2: "fish"}, ("cat", None, "fish")),
        (["cat", None], ("cat", None)),
        (["cat", ""], ("cat", None)),
        ("cat", ("cat",)),
        (["a\nb", "\x1b[31mred"], ("a\nb", "\x1b[31mred")),
        (["\ud800half", "\ud83d\ude00"], ("\ufffdhalf", "\U0001f600")),
    ],
    ids=repr,
)
def test_reads_what_there_is(tmp_path, names, read):
    assert read_names(tmp_path, names) == read
    assert all(name is None or name.encode() for name in read)


@pytest.mark.parametrize(
    "names",
    [
        {"cat", "dog"},
        frozenset({"cat", "dog"}),
        [],
        {},
        5,
        {"cat": "dog"},
        {0: "cat", "x": "dog"},
        {-1: "cat", 0: "dog"},
        np.array([1 + 2j, 3]),
        types.SimpleNamespace(cat=0),
    ],
    # A set's own text is another in every process, and so would be the test's name.
    ids=lambda names: f"{type(names).__name__} of two" if isinstance(names, set | frozenset) else repr(names),
)
def test_does_not_guess(tmp_path, names):
    assert read_names(tmp_path, names) is None


def test_does_not_read_one_long_array_in_every_place(tmp_path, monkeypatch):
    """Each reading would take a long time, and a file of a few kilobytes can ask for thousands."""
    decoded: list[int] = []
    frombuffer = np.frombuffer

    def counted(data, dtype):
        decoded.append(len(data))
        return frombuffer(data, dtype)

    monkeypatch.setattr("stream.network.class_names.np.frombuffer", counted)
    long = np.zeros(100_000, np.uint8)
    assert read_names(tmp_path, [long] * 1000) == (None,) * 1000
    assert read_names(tmp_path, {0: long, 1: long}) == (None, None)
    assert not [size for size in decoded if size >= long.size]


def test_a_set_has_no_order_in_any_protocol(tmp_path):
    model = legacy.Model(small_description())
    for model.names in ({"cat", "dog"}, frozenset({"cat", "dog"})):
        assert read_checkpoint(legacy.save(model, tmp_path / "model.pt", pickle_protocol=4)).names is None


def test_looks_wherever_they_may_be(tmp_path):
    described = {**small_description(), "names": ["of", "yaml"]}
    averaged = legacy.Model(small_description())
    del averaged.names
    assert read_names(tmp_path, ["cat", "dog"], ema=averaged) == ("cat", "dog")
    assert read_names(tmp_path, None, names=("cat", "dog")) == ("cat", "dog")
    assert read_names(tmp_path, {"cat", "dog"}, names=("cat", "dog")) == ("cat", "dog")
    model = legacy.Model(small_description())
    model.yaml = described
    del model.names
    assert read_checkpoint(legacy.save(model, tmp_path / "model.pt")).names == ("of", "yaml")


@pytest.mark.parametrize(
    "names",
    [
        ["a"] * 5000,
        ["a" * 300],
        [1 << 100],
        {0: "a" * 300},
        {1 << 30: "a"},
        np.array(["a" * 300]),
        np.array(["a"] * 5000),
        [b"a" * 300],
    ],
    ids=["many", "long", "number", "by index", "far index", "long array", "many in an array", "bytes"],
)
def test_refuses_names_that_grow(tmp_path, names):
    with pytest.raises(UnreadableCheckpoint, match="too many classes, or names too long"):
        read_names(tmp_path, names)
