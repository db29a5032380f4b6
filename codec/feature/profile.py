"""The calibration profile: what both ends of the feature codec know of the tensors before the first frame."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any, Self, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from codec.errors import ProfileError, ProfileMismatch
from codec.feature.alphabets import LEAST_SHARE, SYMBOLS
from codec.feature.contexts import ALPHABETS, BLOCK_WEIGHTS, COEFFICIENT_WEIGHTS, PROFILED
from codec.feature.rotation import ROTATION_UNIT, Rotation, rotated_components
from codec.feature.step_network import StepNetwork
from codec.layout import FloatArray, Layout, TensorSpec

MAGIC = b"SPCP"
VERSION = 2
MAX_PROFILE_BYTES = 2**26
MAX_METADATA_BYTES = 4096
MAX_GROUPS = 16
MAX_CHANNELS = 2048
MAX_WEIGHT = 1023  # of a context, in 1/256: keeps every sum within 31 bits
ROTATION_TOLERANCE = 2**14  # of products of its rows, in 1/2**20: what is rotated then stays within 32 bits
MAX_MAGNITUDE = 2.0**48  # of a float: no decoded coefficient can then overflow

Metadata: TypeAlias = Mapping[str, str | int]

_HEAD = struct.Struct(">4sBBH")
_GROUP = struct.Struct(">H")


@dataclass(frozen=True, slots=True, eq=False)
class GroupProfile:
    """Statistics of the tensors of one height and width, stacked to C channels.

    Raises ProfileError if an array has another shape, another dtype or a value out of range.
    """

    mean: FloatArray  # (C,)
    forward: FloatArray  # (C, C): from channels less their mean to components, most important first
    inverse: FloatArray  # (C, C)
    rotation: Rotation  # (16, R, R), of the first R = min(C, 32) components' DCT coefficients
    prior: NDArray[np.uint16]  # (C, 16): mean magnitude of each component's coefficients after it, from 1
    weights: NDArray[np.uint16]  # (2, 5, 16): keyframes and differences, of a level's neighbors, in 1/256
    block_weights: NDArray[np.uint16]  # (2, 6): of a block's neighbors, in 1/256
    probabilities: NDArray[np.uint16]  # (PROFILED,): P(0) of each binary context at the start, in 1/32768
    distributions: NDArray[np.uint16]  # (ALPHABETS, 16): share of smaller symbols at the start, in 1/32768
    step_network: StepNetwork  # predicts how sensitive each block is, for the encoder only

    # (1,): what the steps of a quality are off here, as the units had to be larger
    step_offset: NDArray[np.int16]

    def __post_init__(self) -> None:
        if not 1 <= self.channels <= MAX_CHANNELS:
            raise ProfileError(f"a group has {self.channels} channels, not 1 to {MAX_CHANNELS}")
        for name, (dtype, shape) in _arrays(self.channels).items():
            array = self.array(name)
            if array.dtype != dtype or array.shape != shape:
                raise ProfileError(f"{name} is {array.dtype} {array.shape}, not {np.dtype(dtype)} {shape}")
            # False for NaN too
            if array.dtype == np.float32 and not np.abs(array).max() <= MAX_MAGNITUDE:
                raise ProfileError(f"{name} holds NaN, or a value beyond {MAX_MAGNITUDE:.0e}")
        turn = self.rotation.astype(np.int64)
        unit = ROTATION_UNIT**2 * np.eye(turn.shape[1], dtype=np.int64)
        if np.abs(turn @ turn.transpose(0, 2, 1) - unit).max() > ROTATION_TOLERANCE:
            raise ProfileError("a rotation is none: its rows are not orthonormal")
        if not self.prior.all():
            raise ProfileError("a prior is 0; the least is 1")
        if max(self.weights.max(), self.block_weights.max()) > MAX_WEIGHT:
            raise ProfileError(f"a context weight is above {MAX_WEIGHT}")
        if not (self.probabilities.min() >= 32 and self.probabilities.max() <= 32736):
            raise ProfileError("a probability is not 32 to 32736")
        bounds = np.pad(self.distributions.astype(np.int32), ((0, 0), (0, 1)), constant_values=32768)
        if bounds[:, 0].any() or np.diff(bounds, axis=1).min() < LEAST_SHARE:
            raise ProfileError(f"a symbol has a share of less than {LEAST_SHARE}/32768")

    def array(self, name: str) -> NDArray[Any]:
        """An array of the file by its name; those of the step network begin with `step_network.`."""
        owner, _, own_name = name.rpartition(".")
        return cast("NDArray[Any]", getattr(self.step_network if owner else self, own_name))

    @property
    def channels(self) -> int:
        """C."""
        return len(self.mean)


@dataclass(frozen=True, eq=False, repr=False)
class Profile:
    """What calibration learned. Equal profiles have equal hashes.

    Raises ProfileError if the metadata are anything but some short texts and integers, or if no file could hold it.
    """

    groups: tuple[GroupProfile, ...]  # in the order in which their first tensors cross
    metadata: Metadata = field(default_factory=dict)  # for people: network, weights, split, images

    def __post_init__(self) -> None:
        _check_metadata(self.metadata)
        if (size := len(_metadata_text(self.metadata))) > MAX_METADATA_BYTES:
            raise ProfileError(f"{size} bytes of metadata; a profile has at most {MAX_METADATA_BYTES}")
        check_size([group.channels for group in self.groups], size)
        if len({int(group.step_offset[0]) for group in self.groups}) > 1:
            raise ProfileError("groups differ in their step offsets; a frame has one step")

    def pack(self) -> bytes:
        """The profile as bytes: always the same for the same content."""
        text = _metadata_text(self.metadata)
        parts = [_HEAD.pack(MAGIC, VERSION, len(self.groups), len(text)), text]
        parts += [_GROUP.pack(group.channels) for group in self.groups]
        for group in self.groups:
            for name, (dtype, _) in _arrays(group.channels).items():
                parts.append(group.array(name).astype(np.dtype(dtype).newbyteorder("<")).tobytes())
        return b"".join(parts)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """The profile that `data` holds, and nothing else.

        Compares every declared size with what is there before it allocates. Raises ProfileError.
        """
        if len(data) > MAX_PROFILE_BYTES:
            raise ProfileError(f"{len(data)} bytes; a profile has at most {MAX_PROFILE_BYTES}")
        if len(data) < _HEAD.size or data[:4] != MAGIC:
            raise ProfileError(f"it does not start as a profile does, with {MAGIC!r}")
        _, version, count, text_bytes = _HEAD.unpack_from(data)
        if version != VERSION:
            raise ProfileError(
                f"version {version}; this software reads version {VERSION}: calibrate again with it"
            )
        if not 1 <= count <= MAX_GROUPS or text_bytes > MAX_METADATA_BYTES:
            raise ProfileError(f"{count} groups, {text_bytes} bytes of metadata")
        at = _HEAD.size + text_bytes
        if len(data) < at + count * _GROUP.size:
            raise ProfileError("it ends within its head")
        metadata = _parse_metadata(data[_HEAD.size : at])
        sizes = [_GROUP.unpack_from(data, at + i * _GROUP.size)[0] for i in range(count)]
        at += count * _GROUP.size
        if not all(1 <= channels <= MAX_CHANNELS for channels in sizes):
            raise ProfileError(f"a group does not have 1 to {MAX_CHANNELS} channels")
        needed = at + sum(_group_bytes(channels) for channels in sizes)
        if len(data) != needed:
            raise ProfileError(f"{len(data)} bytes, not the {needed} that it declares")
        groups = []
        for channels in sizes:
            own: dict[str, NDArray[Any]] = {}
            of_network: dict[str, NDArray[Any]] = {}
            for name, (dtype, shape) in _arrays(channels).items():
                stored = np.frombuffer(data, np.dtype(dtype).newbyteorder("<"), prod(shape), at)
                owner, _, own_name = name.rpartition(".")
                (of_network if owner else own)[own_name] = stored.astype(dtype).reshape(shape)
                at += stored.nbytes
            groups.append(GroupProfile(**own, step_network=StepNetwork(**of_network)))
        profile = cls(tuple(groups), metadata)
        if profile.pack() != data:
            raise ProfileError("its metadata is not in canonical form")
        return profile

    def __str__(self) -> str:
        return self.hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Profile) and self.hash == other.hash

    def __hash__(self) -> int:
        return hash(self.hash)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the packed profile, 64 hexadecimal digits."""
        return hashlib.sha256(self.pack()).hexdigest()

    def describe(self) -> list[tuple[str, str]]:
        """What the profile is, as names and values for people."""
        rows = [("hash", self.hash), ("bytes", f"{len(self.pack())}")]
        rows += [(name, str(value)) for name, value in sorted(self.metadata.items())]
        for number, group in enumerate(self.groups, start=1):
            spread = group.prior.astype(np.float64)
            share = spread.sum(1) / spread.sum()
            rows.append((f"group {number}", f"{group.channels} channels"))
            half = int(np.searchsorted(np.cumsum(share), 0.5)) + 1
            rows.append((f"group {number}, components", f"the first {half} hold half of all magnitudes"))
        return rows

    def check(self, layout: Layout) -> None:
        """Raise ProfileMismatch unless the profile is for these tensors, of whatever height and width."""
        actual = [sum(channels_of(spec) for spec in group) for group in grouped(layout)]
        expected = [group.channels for group in self.groups]
        if actual != expected:
            raise ProfileMismatch(
                f"the profile is for groups of {expected} channels, the tensors that cross have {actual}; "
                "calibrate for this network and this split"
            )


def check_size(channels: Sequence[int], metadata_bytes: int = 0) -> None:
    """Raise ProfileError unless a profile can hold groups of so many channels."""
    if not 1 <= len(channels) <= MAX_GROUPS:
        raise ProfileError(f"{len(channels)} groups, not 1 to {MAX_GROUPS}")
    if max(channels) > MAX_CHANNELS:
        raise ProfileError(f"a group has {max(channels)} channels, not 1 to {MAX_CHANNELS}")
    size = _HEAD.size + metadata_bytes + sum(_GROUP.size + _group_bytes(count) for count in channels)
    if size > MAX_PROFILE_BYTES:
        raise ProfileError(
            f"groups of {list(channels)} channels need {size} bytes; a profile has at most {MAX_PROFILE_BYTES}"
        )


def grouped(layout: Layout) -> list[list[TensorSpec]]:
    """Tensors of equal height and width together, in the order of the first of each."""
    groups: dict[tuple[int, int], list[TensorSpec]] = {}
    for spec in layout:
        groups.setdefault(plane(spec), []).append(spec)
    return list(groups.values())


def plane(spec: TensorSpec) -> tuple[int, int]:
    """Height and width of a tensor's planes: its last two axes, 1x1 where it has fewer than three."""
    return (spec.shape[-2], spec.shape[-1]) if len(spec.shape) > 2 else (1, 1)


def stack(tensors: Mapping[str, FloatArray], specs: Sequence[TensorSpec]) -> FloatArray:
    """Tensors of one height and width as one array (C, H, W)."""
    return np.concatenate([tensors[spec.name].reshape(-1, *plane(spec)) for spec in specs])


def channels_of(spec: TensorSpec) -> int:
    """Number of a tensor's planes."""
    height, width = plane(spec)
    return spec.size // (height * width)


def _arrays(channels: int) -> dict[str, tuple[type[np.generic], tuple[int, ...]]]:
    """Dtype and shape of each array of a group, in the order of the file."""
    return {
        "mean": (np.float32, (channels,)),
        "forward": (np.float32, (channels, channels)),
        "inverse": (np.float32, (channels, channels)),
        "rotation": (np.int16, (16, *2 * (rotated_components(channels),))),
        "prior": (np.uint16, (channels, 16)),
        "weights": (np.uint16, (2, COEFFICIENT_WEIGHTS, 16)),
        "block_weights": (np.uint16, (2, BLOCK_WEIGHTS)),
        "probabilities": (np.uint16, (PROFILED,)),
        "distributions": (np.uint16, (ALPHABETS, SYMBOLS)),
        "step_offset": (np.int16, (1,)),
        **{
            f"step_network.{name}": (np.float32, shape)
            for name, shape in StepNetwork.shapes(channels).items()
        },
    }


def _group_bytes(channels: int) -> int:
    return sum(np.dtype(dtype).itemsize * prod(shape) for dtype, shape in _arrays(channels).values())


def _parse_metadata(text: bytes) -> dict[str, str | int]:
    try:
        metadata = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ProfileError(f"its metadata is no JSON ({type(error).__name__})") from None
    if not isinstance(metadata, dict):
        raise ProfileError("its metadata is no JSON object")
    _check_metadata(metadata)
    return metadata


def _check_metadata(metadata: Mapping[Any, Any]) -> None:
    for name, value in metadata.items():
        if not isinstance(name, str) or not isinstance(value, str | int) or isinstance(value, bool):
            raise ProfileError("its metadata is not a flat object of texts and integers")
        # They end up in log lines and on terminals.
        if not name.isprintable() or not str(value).isprintable():
            raise ProfileError("its metadata holds characters that cannot be printed")


def _metadata_text(metadata: Metadata) -> bytes:
    return json.dumps(dict(metadata), sort_keys=True, separators=(",", ":")).encode()
