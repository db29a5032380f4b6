"""Calibration profiles as files: what is packed is parsed, and nothing else."""

from __future__ import annotations

import json
import struct
import tracemalloc
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.errors import ProfileError, ProfileMismatch
from codec.feature import profile as profile_module
from codec.feature.profile import (
    MAX_CHANNELS,
    MAX_GROUPS,
    MAX_METADATA_BYTES,
    MAX_PROFILE_BYTES,
    MAX_WEIGHT,
    Profile,
    channels_of,
    check_size,
    grouped,
    plane,
    stack,
)
from codec.feature.step_network import StepNetwork
from codec.feature.uncalibrated import profile_of
from codec.layout import TensorSpec
from tests.codec import reference_feature as reference
from tests.codec.calibrated import make_group, make_profile

LAYOUT = (TensorSpec("4.m", (3, 8, 12)), TensorSpec("6", (4, 4, 4)), TensorSpec("4.cv2", (2, 8, 12)))
PROFILE = make_profile(LAYOUT)
PACKED = PROFILE.pack()
HEAD = struct.Struct(">4sBBH")
TEXT_BYTES = HEAD.unpack_from(PACKED)[3]
ARRAYS_START = HEAD.size + TEXT_BYTES + 2 * len(PROFILE.groups)


def arrays(group):
    own = {each.name: getattr(group, each.name) for each in fields(group) if each.name != "step_network"}
    return own | {each.name: getattr(group.step_network, each.name) for each in fields(group.step_network)}


def with_text(text):
    """The packed profile with other metadata."""
    head = HEAD.pack(b"SPCP", 2, len(PROFILE.groups), len(text))
    return head + text + PACKED[HEAD.size + TEXT_BYTES :]


def test_what_is_packed_is_parsed():
    parsed = Profile.parse(PACKED)
    assert parsed == PROFILE
    assert parsed.metadata == {"network": "none", "seed": 0}
    for group, original in zip(parsed.groups, PROFILE.groups, strict=True):
        for name, array in arrays(original).items():
            assert arrays(group)[name].dtype == array.dtype
            assert np.array_equal(arrays(group)[name], array)
            assert arrays(group)[name].flags.writeable
    assert parsed.pack() == PACKED


def test_the_slow_parser_reads_the_same():
    groups, metadata = reference.parse_profile(PACKED)
    assert metadata == PROFILE.metadata
    for slow, group in zip(groups, PROFILE.groups, strict=True):
        for each in fields(slow):
            assert np.array_equal(getattr(slow, each.name), getattr(group, each.name))


def test_the_hash_is_that_of_the_bytes_and_only_of_the_content():
    """Made again, from other arrays in memory and metadata in another order."""
    again = Profile(make_profile(LAYOUT).groups, {"seed": 0, "network": "none"})
    assert again.hash == PROFILE.hash == str(PROFILE)
    assert hash(again) == hash(PROFILE)
    assert len(PROFILE.hash) == 64
    assert make_profile(LAYOUT, 1) != PROFILE
    assert PROFILE != 1
    assert Profile(PROFILE.groups, {"seed": 1}) != PROFILE


def test_groups_of_different_step_offsets_are_refused():
    first, *rest = PROFILE.groups
    assert rest
    with pytest.raises(ProfileError, match="step offsets"):
        Profile((replace(first, step_offset=np.array([-1], np.int16)), *rest))


@pytest.mark.parametrize("name", sorted(arrays(PROFILE.groups[0])))
def test_every_array_counts_for_the_hash(name):
    group = PROFILE.groups[0]
    array = arrays(group)[name].copy()
    place = (0,) * array.ndim if name != "distributions" else (0, 1)
    array[place] += 1 if name != "rotation" else np.sign(array[place])
    if name in {each.name for each in fields(group)}:
        changed = replace(group, **{name: array})
    else:
        changed = replace(group, step_network=replace(group.step_network, **{name: array}))
    assert Profile((changed,), PROFILE.metadata) != Profile((group,), PROFILE.metadata)


def test_every_truncation_is_refused():
    for size in (*range(ARRAYS_START + 50), *range(ARRAYS_START + 50, len(PACKED), 997), len(PACKED) - 1):
        with pytest.raises(ProfileError):
            Profile.parse(PACKED[:size])


def test_a_profile_from_before_there_were_rotations_is_told_so():
    older = PACKED[:4] + b"\1" + PACKED[5 : -PROFILE.groups[-1].rotation.nbytes]
    with pytest.raises(ProfileError, match="version 1; this software reads version 2: calibrate again"):
        Profile.parse(older)


def test_bytes_after_it_are_refused():
    with pytest.raises(ProfileError, match="declares"):
        Profile.parse(PACKED + b"\0")


@given(st.integers(0, ARRAYS_START - 1), st.integers(1, 255))
def test_a_damaged_head_is_refused_or_says_something_else(at, flip):
    changed = bytearray(PACKED)
    changed[at] ^= flip
    try:
        parsed = Profile.parse(bytes(changed))
    except ProfileError:
        return
    assert parsed.pack() == changed
    assert parsed != PROFILE


@given(st.integers(0, 2**32))
@settings(max_examples=60)
def test_damaged_arrays_are_refused_or_within_range(seed):
    rng = np.random.default_rng(seed)
    changed = np.frombuffer(PACKED, np.uint8).copy()
    places = rng.integers(ARRAYS_START, len(PACKED), 4)
    changed[places] = rng.integers(0, 256, 4)
    try:
        parsed = Profile.parse(changed.tobytes())
    except ProfileError:
        return
    assert parsed.pack() == changed.tobytes()
    for group in parsed.groups:
        planes = np.full((group.channels, 1), 32767, np.float32)
        assert np.isfinite(group.inverse @ planes + group.mean[:, None]).all()


@given(st.binary(max_size=300))
def test_noise_is_refused(noise):
    with pytest.raises(ProfileError):
        Profile.parse(noise)
    with pytest.raises(ProfileError):
        Profile.parse(PACKED[:5] + noise)


@pytest.mark.parametrize(
    ("head", "match"),
    [
        (b"SPLC\2\1\0\2{}", "start"),
        (b"SPCP\1\1\0\2{}\0\1", "version 1; this software reads version 2: calibrate again"),
        (b"SPCP\3\1\0\2{}\0\1", "version 3"),
        (b"SPCP\2\0\0\2{}", "0 groups"),
        (b"SPCP\2\x11\0\2{}" + b"\0\1" * 17, "17 groups"),
        (b"SPCP\2\1\xff\xff{}\0\1", "65535 bytes of metadata"),
        (b"SPCP\2\1\0\2{}\0\0", "channels"),
        (b"SPCP\2\1\0\2{}\x08\x01", "channels"),
        (b"SPCP\2\1\0\2{}", "head"),
    ],
)
def test_heads_out_of_range_are_refused(head, match):
    with pytest.raises(ProfileError, match=match):
        Profile.parse(head)


def test_nothing_is_allocated_for_sizes_that_are_only_declared():
    head = HEAD.pack(b"SPCP", 2, MAX_GROUPS, 2) + b"{}" + struct.pack(">H", MAX_CHANNELS) * MAX_GROUPS
    tracemalloc.start()
    try:
        with pytest.raises(ProfileError, match="declares"):
            Profile.parse(head + bytes(1000))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100_000


def test_a_profile_is_at_most_64_mebibytes():
    with pytest.raises(ProfileError, match="at most"):
        Profile.parse(bytes(MAX_PROFILE_BYTES + 1))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b"\xff\xfe",
        b'{"a":1.5}',
        b'{"a":NaN}',
        b'{"a":true}',
        b'{"a":null}',
        b'{"a":{}}',
        b'{"a":[1]}',
        b"[" * 2000,
        b'{"a":"\\u001b[2J"}',
        b'{"\\u0007":1}',
        b'{"a":"\\ud800"}',
        b'{"a": 1}',
        b'{"b":1,"a":1}',
        b'{"a":1,"a":1}',
        b'{"a":"\xc3\xa9"}',
        b'{"a":1}\n',
    ],
)
def test_metadata_that_is_not_flat_printable_and_canonical_is_refused(text):
    with pytest.raises(ProfileError, match="metadata"):
        Profile.parse(with_text(text))


@given(
    st.dictionaries(
        st.text(max_size=20).filter(str.isprintable),
        st.integers(-(10**30), 10**30) | st.text(max_size=40).filter(str.isprintable),
        max_size=8,
    )
)
def test_any_flat_metadata_come_back(metadata):
    profile = Profile(PROFILE.groups, metadata)
    assert Profile.parse(profile.pack()).metadata == metadata


@pytest.mark.parametrize("metadata", [{"a": 1.0}, {"a": None}, {1: "a"}, {"a": "\n"}, {"a": "x" * 5000}])
def test_metadata_that_could_not_be_parsed_are_not_packed(metadata):
    with pytest.raises(ProfileError, match="metadata"):
        Profile(PROFILE.groups, metadata)


def test_metadata_are_bounded_in_bytes():
    longest = "x" * (MAX_METADATA_BYTES - len(json.dumps({"a": ""}, separators=(",", ":"))))
    assert Profile.parse(Profile(PROFILE.groups, {"a": longest}).pack()).metadata == {"a": longest}
    with pytest.raises(ProfileError):
        Profile(PROFILE.groups, {"a": longest + "x"})


def test_groups_are_bounded_in_number():
    group = make_group(1, np.random.default_rng(0))
    assert len(Profile.parse(Profile((group,) * MAX_GROUPS).pack()).groups) == MAX_GROUPS
    for groups in ((), (group,) * (MAX_GROUPS + 1)):
        with pytest.raises(ProfileError, match="groups"):
            Profile(groups)


def test_what_no_file_could_hold_is_not_packed():
    """Two groups of the most channels are more than 64 MiB; of a few less, and no metadata, just less."""
    check_size([MAX_CHANNELS, 1900])
    for channels in ([MAX_CHANNELS, MAX_CHANNELS], [1, MAX_CHANNELS + 1], []):
        with pytest.raises(ProfileError):
            check_size(channels)
    group = profile_of(np.zeros((2, MAX_CHANNELS), np.float16))
    with pytest.raises(ProfileError, match="at most"):
        Profile((group, group))


def test_the_size_that_is_checked_is_that_of_the_file(monkeypatch):
    monkeypatch.setattr(profile_module, "MAX_PROFILE_BYTES", len(PACKED))
    assert Profile(PROFILE.groups, PROFILE.metadata).pack() == PACKED
    monkeypatch.setattr(profile_module, "MAX_PROFILE_BYTES", len(PACKED) - 1)
    with pytest.raises(ProfileError, match=f"need {len(PACKED)} bytes"):
        Profile(PROFILE.groups, PROFILE.metadata)


def changed(name, place, value, dtype=None):
    group = PROFILE.groups[0]
    array = arrays(group)[name].astype(dtype or arrays(group)[name].dtype)
    array[place] = value
    if name in StepNetwork.shapes(1):
        return replace(group, step_network=replace(group.step_network, **{name: array}))
    return replace(group, **{name: array})


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e15, -1e15])
@pytest.mark.parametrize("name", ["mean", "forward", "inverse", "mix", "first_bias", "output"])
def test_floats_that_could_overflow_are_refused(name, bad):
    with pytest.raises(ProfileError, match=name):
        changed(name, 0, bad)


@pytest.mark.parametrize(
    ("name", "place", "value", "match"),
    [
        ("prior", (0, 3), 0, "prior"),
        ("rotation", (3, 0), 0, "rotation"),
        ("rotation", (3, 0), 1024, "rotation"),
        ("rotation", (3, 0, 0), -(2**15), "rotation"),
        ("weights", (1, 2, 3), MAX_WEIGHT + 1, "weight"),
        ("block_weights", (0, 1), MAX_WEIGHT + 1, "weight"),
        ("probabilities", 5, 31, "probability"),
        ("probabilities", 5, 32737, "probability"),
        ("distributions", (0, 0), 1, "symbol"),
        ("distributions", (3, 5), 32767, "symbol"),
        ("distributions", (3, 15), 32761, "symbol"),
    ],
)
def test_values_out_of_range_are_refused(name, place, value, match):
    with pytest.raises(ProfileError, match=match):
        changed(name, place, value)


def test_a_rotation_may_be_off_by_a_64th():
    group, turn = PROFILE.groups[0], np.tile(np.eye(5, dtype=np.int16), (16, 1, 1))
    replace(group, rotation=1031 * turn)  # of 1024
    with pytest.raises(ProfileError, match="rotation"):
        replace(group, rotation=1032 * turn)


@pytest.mark.parametrize("name", ["mean", "prior", "probabilities", "mix"])
def test_arrays_of_another_kind_are_refused(name):
    with pytest.raises(ProfileError, match=name):
        changed(name, 0, 100, np.float64)
    group = PROFILE.groups[0]
    if name != "mix":
        with pytest.raises(ProfileError):
            replace(group, **{name: arrays(group)[name][:-1]})


def test_a_description_tells_hash_size_and_metadata():
    rows = dict(PROFILE.describe())
    assert rows["hash"] == PROFILE.hash
    assert rows["bytes"] == str(len(PACKED))
    assert rows["network"] == "none"
    assert rows["group 1"] == "5 channels"
    assert rows["group 2"] == "4 channels"


# --- layouts ---


def test_tensors_of_one_size_form_a_group_in_the_order_of_the_first():
    assert [[spec.name for spec in group] for group in grouped(LAYOUT)] == [["4.m", "4.cv2"], ["6"]]


@pytest.mark.parametrize(
    ("shape", "size", "channels"),
    [((3, 8, 12), (8, 12), 3), ((2, 3, 8, 12), (8, 12), 6), ((7,), (1, 1), 7), ((2, 5), (1, 1), 10)],
)
def test_planes_are_the_last_two_of_three_axes_or_more(shape, size, channels):
    spec = TensorSpec("a", shape)
    assert plane(spec) == size
    assert channels_of(spec) == channels


def test_stack_joins_along_the_channels():
    tensors = {spec.name: np.full(spec.shape, i, np.float32) for i, spec in enumerate(LAYOUT)}
    stacked = stack(tensors, grouped(LAYOUT)[0])
    assert stacked.shape == (5, 8, 12)
    assert stacked[:, 0, 0].tolist() == [0, 0, 0, 2, 2]


def test_check_takes_every_height_and_width_and_no_other_channels():
    PROFILE.check(LAYOUT)
    PROFILE.check((TensorSpec("x", (5, 30, 40)), TensorSpec("y", (4, 1, 1))))
    for wrong in (
        LAYOUT[:2],
        LAYOUT[1:],
        (LAYOUT[1], LAYOUT[0], LAYOUT[2]),
        (*LAYOUT, TensorSpec("9", (1,))),
    ):
        with pytest.raises(ProfileMismatch, match=r"\[5, 4\]"):
            PROFILE.check(wrong)
