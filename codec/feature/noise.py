"""What of a frame is the camera's noise: blocks that stand still are averaged over frames, as they were taken.

A block's innovation is its difference from its mean so far. Where nothing but noise changes, innovations have the same
energy in every frame and nothing in common with one another: a change shows as more energy at once, a slow or faint
one as innovations that point the same way for some frames. The first ends a block's averaging, the second shortens it,
so that a mean is never further from the picture than the noise of the single frame that it stands for.
"""

# ruff: noqa: PLR0917 - a kernel's buffers are its caller's

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import boolean, float32, float64, int32, uint8, void
from numba.types import Array
from numba.types import NamedTuple as NamedTupleType
from numpy.typing import NDArray

from codec.feature.profile import GroupProfile
from codec.jit import Bytes, inlined, kernel
from codec.layout import FloatArray

LONGEST = 32  # frames that a mean stands for
LEARNED = 16  # frames that a block's noise is the mean of
TREND_SHARE = np.float32(0.25)  # of the newest innovation in the mean of them

ABRUPT = np.float32(1.5)  # times a block's noise: more is a change
TREND = np.float32(1.5)  # times what noise leaves of the innovations' mean: more is a slow change
PLAUSIBLE = 6.0  # times the noise of the calmest blocks: more is no block's noise
LOUDEST = 0.8  # energy, nor is this: the noise of 8 gray levels has .2 to .5, a picture 2 to 4
CALM_SHARE = 0.2  # of the blocks, by which noise is measured
WHITE_SHARE = 0.5  # of these, at least, change as noise does: else it is motion
STEADY = np.float32(1.5)  # ratio within which noise stays from frame to frame
STEADY_FRAMES = 2  # after the first two, before a block may be taken to be still
LEAST_ALTERNATING, MOST_ALTERNATING = TREND_SHARE**2 * np.float32(0.55), TREND_SHARE**2 * np.float32(1.1)
"""Of two innovations' mean, squared, to the newest's square: for noise it is TREND_SHARE**2 * .81."""

_TREND_ENERGY = (TREND_SHARE**2 * np.cumsum((1 - TREND_SHARE) ** (2 * np.arange(32.0)))).astype(np.float32)
"""Energy of the mean of 1, 2, ... innovations that have nothing in common, of that of one."""


class _Blocks(NamedTuple):
    """What is known of each of a group's B blocks. Energies are mean squares of samples, in units of those expected."""

    length: FloatArray  # (B,): frames that the mean stands for
    age: NDArray[np.int32]  # (B,): innovations in the trend
    noise: FloatArray  # (B,): energy of a frame's noise, 0 where it is not known
    learned: NDArray[np.int32]  # (B,): frames that it was learned from
    candidate: FloatArray  # (B,): the same, of a block that is not yet taken to be still
    steady: NDArray[np.int32]  # (B,): frames
    still: Bytes  # (B,): 1 where nothing but noise changed


_PLANES = Array(float32, 3, "C")
_READ = Array(float32, 3, "C", readonly=True)
_LINES, _ROW = Array(float32, 2, "C"), Array(float32, 1, "C")
_FLAGS, _COUNTS = Array(boolean, 1, "C"), Array(int32, 1, "C")
_BLOCKS = NamedTupleType((_ROW, _COUNTS, _ROW, _COUNTS, _ROW, _COUNTS, Array(uint8, 1, "C")), _Blocks)


@kernel(void(_READ, _READ, _PLANES, _ROW, _LINES, _LINES), fastmath=True)
def _compare(
    samples: FloatArray,
    mean: FloatArray,
    trend: FloatArray,
    weights: FloatArray,
    energy: FloatArray,
    persistent: FloatArray,
) -> None:
    """Go on with the innovation's trend (K, H, W), and sum both's squares over columns of blocks (H/4, W)."""
    components, height, width = samples.shape
    energy[:] = 0
    persistent[:] = 0
    for k in range(components):
        weight = weights[k]
        for y in range(height):
            at = y // 4
            for x in range(width):
                new = samples[k, y, x] - mean[k, y, x]
                lasting = trend[k, y, x] + TREND_SHARE * (new - trend[k, y, x])
                trend[k, y, x] = lasting
                energy[at, x] += weight * new * new
                persistent[at, x] += weight * lasting * lasting


@kernel(void(_PLANES, _PLANES, _READ, _ROW, _FLAGS, _LINES, _LINES), fastmath=True)
def _follow(
    mean: FloatArray,
    trend: FloatArray,
    samples: FloatArray,
    lengths: FloatArray,
    moved: NDArray[np.bool_],
    gains: FloatArray,
    forgotten: FloatArray,
) -> None:
    """Take the frame into each block's mean; one that moved begins anew. gains, forgotten (H/4, W): for work."""
    components, height, width = mean.shape
    for at in range(height // 4):
        for x in range(width):
            b = at * (width // 4) + x // 4
            gains[at, x] = np.float32(1) / lengths[b]
            forgotten[at, x] = np.float32(moved[b])
    for k in range(components):
        for y in range(height):
            at = y // 4
            for x in range(width):
                new = samples[k, y, x] - mean[k, y, x]
                mean[k, y, x] += gains[at, x] * new
                trend[k, y, x] += forgotten[at, x] * (TREND_SHARE * new - trend[k, y, x])


@inlined
def _spread(length: np.float32) -> np.float32:
    """Energy of an innovation, of that of a frame's noise: the mean has noise of its own."""
    return np.float32(1) + np.float32(1) / length


@inlined
def _of_trend(blocks: _Blocks, b: int) -> np.float32:
    """Energy of the trend where a block's innovations have nothing in common, of that of a frame's noise."""
    of_one: np.float32 = _TREND_ENERGY[min(blocks.age[b], _TREND_ENERGY.size) - 1]
    return of_one * _spread(blocks.length[b])


@inlined
def _alternates(blocks: _Blocks, b: int, energy: np.float32, persistent: np.float32) -> bool | np.bool_:
    """Whether two innovations of single frames are noise's: what noise adds to one, it takes from the next."""
    return (
        blocks.length[b] == 1
        and blocks.age[b] == 2
        and persistent > LEAST_ALTERNATING * energy
        and persistent < MOST_ALTERNATING * energy
    )


@kernel(void(_LINES, _LINES, _ROW, _ROW))
def _sum_blocks(
    energy_of: FloatArray, persistent_of: FloatArray, energy: FloatArray, persistent: FloatArray
) -> None:
    """Set both's sums over blocks (B,) from those over their columns (H/4, W)."""
    first, second = energy_of.reshape(-1), persistent_of.reshape(-1)
    for b in range(energy.size):
        i = 4 * b
        energy[b] = first[i] + first[i + 1] + first[i + 2] + first[i + 3]
        persistent[b] = second[i] + second[i + 1] + second[i + 2] + second[i + 3]


@kernel(void(_BLOCKS, _ROW, _ROW, _ROW, _FLAGS))
def _tell_noise(
    blocks: _Blocks,
    energy: FloatArray,
    persistent: FloatArray,
    of_frame: FloatArray,
    white: NDArray[np.bool_],
) -> None:
    """Set what of each block's energy is the frame's own, and whether the block changes as noise does, both (B,)."""
    for b in range(energy.size):
        blocks.age[b] += 1
        of_frame[b] = energy[b] / _spread(blocks.length[b])
        if blocks.length[b] > 1:
            white[b] = persistent[b] < TREND * _of_trend(blocks, b) * of_frame[b]
        else:
            white[b] = _alternates(blocks, b, energy[b], persistent[b])


@kernel(void(_BLOCKS, _ROW, _ROW, _ROW, float32, _FLAGS))
def _decide(
    blocks: _Blocks,
    energy: FloatArray,
    persistent: FloatArray,
    of_frame: FloatArray,
    loudest: np.float32,
    moved: NDArray[np.bool_],
) -> None:
    """Set for how many frames each mean stands from now on, and which blocks begin anew (B,).

    loudest: what no block's noise reaches.
    """
    length, _, noise, learned, candidate, steady, still = blocks
    for b in range(energy.size):
        own = of_frame[b]
        plausible = own < loudest
        known = plausible and own < ABRUPT * noise[b]
        trending = persistent[b] > TREND * _of_trend(blocks, b) * noise[b]
        going_on = known and not trending
        if (
            _alternates(blocks, b, energy[b], persistent[b])
            and own < STEADY * candidate[b]
            and STEADY * own > candidate[b]
        ):
            steady[b] += 1
            candidate[b] += (own - candidate[b]) / (steady[b] + 1)
        else:
            steady[b] = 0
            candidate[b] = own
        found = plausible and not going_on and steady[b] >= STEADY_FRAMES
        if found:
            learned[b] = steady[b]
            noise[b] = candidate[b]
        elif going_on:
            learned[b] += 1
            noise[b] += (own - noise[b]) / min(learned[b], LEARNED)
        still[b] = going_on or found
        drifting = known and trending and not found and length[b] > 1
        if still[b]:
            length[b] = min(length[b] + np.float32(1), np.float32(LONGEST))
        elif drifting:
            length[b] = np.floor(length[b] / np.float32(2))
        else:
            length[b] = 1
        moved[b] = not (still[b] or drifting)
        if moved[b]:
            blocks.age[b] = 1


@kernel(float64(_ROW, _ROW))
def _calm_energy(energy: FloatArray, ordered: FloatArray) -> float:
    """What CALM_SHARE of the blocks (B,) do not exceed, as numpy's quantile; `ordered` (B,) is for work."""
    for b in range(energy.size):
        ordered[b] = energy[b]
    share = CALM_SHARE * (ordered.size - 1)
    place = int(share)
    first, last = 0, ordered.size - 1
    while first < last:  # Hoare's selection: what is less comes before `place`, what is more after it
        pivot = ordered[(first + last) // 2]
        i, j = first, last
        while i <= j:
            while ordered[i] < pivot:
                i += 1
            while ordered[j] > pivot:
                j -= 1
            if i <= j:
                ordered[i], ordered[j] = ordered[j], ordered[i]
                i += 1
                j -= 1
        if place <= j:
            last = j
        elif place >= i:
            first = i
        else:
            break
    if place + 1 == ordered.size:
        return float(ordered[place])
    above = ordered[place + 1]
    for b in range(place + 2, ordered.size):
        above = min(above, ordered[b])
    return float(ordered[place] + np.float32(share - place) * (above - ordered[place]))


@kernel(boolean(_ROW, _FLAGS, float64))
def _is_calm_white(energy: FloatArray, white: NDArray[np.bool_], calm: float) -> bool:
    """Whether of the blocks of so little energy, or less, more than WHITE_SHARE change as noise does."""
    calmest, of_noise = 0, 0
    for b in range(energy.size):
        is_calm = energy[b] <= calm
        calmest += is_calm
        of_noise += is_calm and white[b]
    return of_noise > WHITE_SHARE * calmest


class TemporalFilter:
    """The mean of each block over the last frames in which it stood still; the newest frame where it moved."""

    def __init__(self, channels: int, rows: int, columns: int) -> None:
        self.mean = np.zeros((channels, rows, columns), np.float32)
        self._trend = np.zeros_like(self.mean)  # mean of the innovations, the newest first
        self._weights = np.zeros(channels, np.float32)
        self._energy = np.zeros((rows // 4, columns), np.float32)
        self._persistent = np.zeros_like(self._energy)
        count = rows // 4 * (columns // 4)
        self._blocks = _Blocks(
            length=np.ones(count, np.float32),
            age=np.zeros(count, np.int32),
            noise=np.zeros(count, np.float32),
            learned=np.zeros(count, np.int32),
            candidate=np.zeros(count, np.float32),
            steady=np.zeros(count, np.int32),
            still=np.zeros(count, np.uint8),
        )
        self._of_blocks = np.zeros(count, np.float32), np.zeros(count, np.float32)  # energy, persistent
        self._of_frame, self._ordered = np.zeros(count, np.float32), np.zeros(count, np.float32)
        self._white, self._moved = np.zeros(count, np.bool_), np.zeros(count, np.bool_)
        self._frames = 0
        self._calm = 0.0  # energy of the calmest blocks' noise, 0 where there is none or all moves

    @property
    def still(self) -> Bytes:
        """1 for each block in which nothing but noise changed, (B,)."""
        return self._blocks.still

    def begin(self, profile: GroupProfile) -> None:
        """Forget all frames: the next are in the units of this profile."""
        # Noise and picture have the same share of each component, near enough: all components tell as much.
        expected = profile.prior[:, 1:].astype(np.float32).mean(1)
        self._weights[:] = 1 / (16 * expected.size * expected**2)
        self._trend[:] = 0
        self._calm, self._frames = 0.0, 0
        for array in self._blocks:
            array[:] = 0
        self._blocks.length[:] = 1

    def take(self, samples: FloatArray) -> None:
        """Go on with the next frame, (K, H, W)."""
        self._frames += 1
        if self._frames == 1:
            self.mean[:] = samples
            return
        _compare(samples, self.mean, self._trend, self._weights, self._energy, self._persistent)
        energy, persistent = self._of_blocks
        _sum_blocks(self._energy, self._persistent, energy, persistent)
        moved = self._judge(energy, persistent)
        _follow(
            self.mean,
            self._trend,
            samples,
            self._blocks.length,
            moved,
            self._energy,
            self._persistent,
        )

    def _judge(self, energy: FloatArray, persistent: FloatArray) -> NDArray[np.bool_]:
        """Decide for how many frames each mean stands from now on; returns which blocks begin anew."""
        _tell_noise(self._blocks, energy, persistent, self._of_frame, self._white)
        self._measure()
        loudest = np.float32(min(PLAUSIBLE * self._calm, LOUDEST))
        _decide(self._blocks, energy, persistent, self._of_frame, loudest, self._moved)
        return self._moved

    def _measure(self) -> None:
        """Noise of the calmest blocks, if it is noise."""
        if self._frames < 3:
            return
        calm = _calm_energy(self._of_frame, self._ordered)
        if calm > LOUDEST or not _is_calm_white(self._of_frame, self._white, calm):
            self._calm *= 0.75
        elif self._calm:
            self._calm += 0.25 * (calm - self._calm)
        else:
            self._calm = calm
