"""Hostile payloads into the feature codec's decoding kernels, without Python between them.

    python -m tests.fuzz.kernels [--minutes 10] [--millions 100] [--seed 1]

What `tests.fuzz.run` asks of whole packets, this asks of the kernels alone, behind all other checks, some hundred
thousand times a second and with every index checked. It steers by nothing: payloads are those of an encoder with a few
bytes changed, cut short or gone on with noise, and noise of all densities. Decoders go on from the state that the last
one left, and begin anew now and then.
"""

# ruff: noqa: PLR0917 - a kernel's buffers are its caller's

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numba
import numpy as np
from numpy.typing import NDArray

from codec.feature.blocks import FrameBlocks, decode_blocks
from codec.feature.group import Group
from codec.feature.levels import FrameLevels, LevelContexts, LevelWorkspace, decode_levels
from codec.feature.motion import compensate, pad
from codec.feature.parameters import CHECKSUM_FIELD, STEP_FIELD
from codec.feature.range_coder import start_decoder
from codec.feature.transform import COARSEST, FINEST, STEPS, add_inverse, gather_rotated
from codec.layout import TensorSpec
from codec.packet import Stamp, is_keyframe
from codec.packet_stream import PacketReader
from tests.codec.calibrated import make_codec
from tests.codec.samples import video

LAYOUT = (TensorSpec("a", (4, 8, 12)),)  # of four components, which are laid out four a store
LARGEST = 480  # bytes of a payload
BATCH = 50_000  # executions between two looks at the clock
FRESH = 8  # of so many executions one begins anew

Bytes: TypeAlias = NDArray[np.uint8]


class State(NamedTuple):
    """What a decoder of one group holds."""

    blocks: FrameBlocks
    levels: FrameLevels
    keyframe: LevelContexts
    difference: LevelContexts
    workspace: LevelWorkspace
    planes: NDArray[np.int16]
    samples: NDArray[np.int16]
    motion: tuple[NDArray[np.int32], NDArray[np.int32]]
    back: NDArray[np.float32]
    gathered: NDArray[np.float32]
    turned: NDArray[np.int32]
    rows: NDArray[np.int32]
    coefficients: NDArray[np.int32]
    limits: NDArray[np.int32]


def state_of(group: Group) -> State:
    """The arrays of a group as its decoder passes them to the kernels."""
    inverse = group._inverse
    return State(
        group.frame_blocks, group.frame_levels, group.contexts(True), group.contexts(False), group.workspace,
        group.planes, group._samples, group._motion_workspace, inverse._back, inverse._gathered,
        inverse._turned, inverse._rows, inverse._coefficients, inverse._limits,
    )  # fmt: skip


@numba.njit(nogil=True)
def _hostile(seeds: NDArray[np.uint8], sizes: NDArray[np.int64], out: Bytes) -> int:
    """Write a payload and return its size."""
    kind = np.random.randint(8)
    if kind < 6:
        seed = np.random.randint(sizes.size)
        size = sizes[seed]
        out[:size] = seeds[seed, :size]
        for _ in range(np.random.randint(1, 6)):
            if size:
                out[np.random.randint(size)] = np.random.randint(256)
        if kind == 0:
            return np.random.randint(size + 1)
        if kind == 1:
            more = np.random.randint(LARGEST - size)
            for at in range(size, size + more):
                out[at] = np.random.randint(256)
            return size + more
        return size
    size = np.random.randint(LARGEST)
    rarer, zeros = np.random.randint(4), np.random.randint(2) == 0
    for at in range(size):
        byte = np.random.randint(256)
        for _ in range(rarer):
            byte &= np.random.randint(256)
        out[at] = byte if zeros else ~byte & 255
    return size


@numba.njit(nogil=True)
def _decode(
    state: State, fresh: State, keyframe: bool, step: int, data: Bytes, coder: NDArray[np.uint64]
) -> int:
    """What `FeatureDecoder` does with a payload; returns how many of its kernels took it."""
    contexts = state.keyframe if keyframe else state.difference
    if keyframe:
        state.planes[:] = 0
        contexts.energy[:] = 0
        state.blocks.before[:] = 0
        contexts.probabilities[:] = fresh.keyframe.probabilities
        contexts.distributions[:] = fresh.keyframe.distributions
        contexts.met[:] = fresh.keyframe.met
    start_decoder(data, coder)
    if decode_blocks(state.blocks, keyframe, contexts.probabilities, data, coder):
        return 0
    for b in range(state.blocks.changes.size):
        own = min(max(step + 4 * state.blocks.changes[b], FINEST), COARSEST)
        state.levels.steps[b] = own
        state.levels.deltas[b] = STEPS[own]
    if not keyframe and state.blocks.vectors.any():
        pad(state.planes, state.samples)
        compensate(
            state.samples,
            state.blocks.vectors,
            state.blocks.sharp,
            state.planes,
            state.motion[0],
            state.motion[1],
        )
    if decode_levels(state.levels, contexts, step, data, coder, state.workspace):
        return 1
    levels, lasts, deltas = state.levels.levels, state.levels.lasts, state.levels.deltas
    gather_rotated(levels, lasts, state.gathered)
    for f in range(len(state.back)):
        for j in range(state.turned.shape[1]):
            for b in range(state.turned.shape[2]):
                state.turned[f, j, b] = (state.back[f, j] * state.gathered[f, :, b]).sum()
    add_inverse(
        levels, lasts, deltas, state.turned, False, state.planes, state.rows, state.coefficients, state.limits
    )
    state.blocks.before[:] = state.blocks.changes
    return 2


@numba.njit(nogil=True)
def hammer(
    state: State, fresh: State, seeds: NDArray[np.uint8], sizes: NDArray[np.int64], count: int, seed: int,
    taken: NDArray[np.int64],
) -> None:  # fmt: skip
    """Decode so many hostile payloads, and count in `taken` (3,) by how many kernels took them.

    Raises IndexError where a kernel leaves its arrays, if compiled with NUMBA_BOUNDSCHECK=1.
    """
    np.random.seed(seed)
    out, coder = np.zeros(LARGEST, np.uint8), np.zeros(3, np.uint64)
    for _ in range(count):
        size = _hostile(seeds, sizes, out)
        keyframe = np.random.randint(FRESH) == 0
        step = np.random.randint(FINEST, COARSEST + 1)
        taken[_decode(state, fresh, keyframe, step, out[:size], coder)] += 1


def payloads() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """An encoder's own payloads behind their steps and checksums, (N, LARGEST), and their sizes, (N,)."""
    codec = make_codec(LAYOUT, quality=10)
    encoder, reader = codec.encoder(LAYOUT), PacketReader(codec.packet_format(LAYOUT))
    found = []
    for number, tensors in enumerate(video(0, 6, LAYOUT)):
        data = encoder.encode(tensors, Stamp(number, number)).data
        packet = reader.open(data)
        reader.accept(packet)
        head = STEP_FIELD.size + (0 if is_keyframe(data) else CHECKSUM_FIELD.size)
        found.append(np.frombuffer(packet.sections[0], np.uint8)[head:][: LARGEST // 2])
    table = np.zeros((len(found), LARGEST), np.uint8)
    for row, payload in zip(table, found, strict=True):
        row[: payload.size] = payload
    return table, np.array([payload.size for payload in found], np.int64)


def groups() -> tuple[Group, Group]:
    """One to decode with, and one as a keyframe finds it."""
    profile = make_codec(LAYOUT).profile
    assert profile
    made = []
    for _ in range(2):
        group = Group(list(LAYOUT), profile.groups[0])
        group.begin(True, False)
        made.append(group)
    return made[0], made[1]


def main() -> int:
    """Run what the command line asks for; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--millions", type=float, default=1000)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if os.environ.get("NUMBA_BOUNDSCHECK") != "1":
        # Compiled anew in a process of its own, and kept apart, since numba's cache does not know this flag.
        checked = {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(Path(".fuzz/numba").resolve())}
        command = [sys.executable, "-m", "tests.fuzz.kernels", *sys.argv[1:]]
        return subprocess.run(command, env=os.environ | checked, check=False).returncode
    group, fresh = groups()
    state, start = state_of(group), state_of(fresh)
    seeds, sizes = payloads()
    taken, wanted, seed = np.zeros(3, np.int64), round(1e6 * options.millions), options.seed
    started_s = time.monotonic()
    while taken.sum() < wanted and time.monotonic() < started_s + 60 * options.minutes:
        hammer(state, start, seeds, sizes, min(BATCH, wanted - int(taken.sum())), seed, taken)
        seed += 1
        if seed % 50 == 0:
            _report(taken, time.monotonic() - started_s)
    _report(taken, time.monotonic() - started_s)
    return 0


def _report(taken: NDArray[np.int64], seconds: float) -> None:
    blocks, levels, all_of_them = taken.tolist()
    print(
        f"{taken.sum():,} executions, {taken.sum() / max(seconds, 1e-9):,.0f} a second: refused with the blocks "
        f"{blocks:,}, with the levels {levels:,}, decoded {all_of_them:,}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
