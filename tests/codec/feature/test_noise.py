"""What is told from a camera's noise: what stands still is averaged, what moves is not smeared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from codec.feature import noise as rules
from codec.feature.noise import LONGEST, TREND_SHARE, TemporalFilter
from codec.layout import TensorSpec
from tests.codec.calibrated import make_profile

SHAPE = (16, 32, 40)
PRIOR = np.array(
    [5000, 180, *[30] * 14], np.uint16
)  # a block's mean tells nothing of noise, the others are 40 on average
PROFILE = replace(make_profile((TensorSpec("a", SHAPE),)).groups[0], prior=np.tile(PRIOR, (SHAPE[0], 1)))
NOISES = [1, 2, 4, 8]


def scene(seed, scale=60.0):
    """A smooth picture of 16 components."""
    x = np.random.default_rng(seed).normal(size=SHAPE)
    for _ in range(3):
        x = (x + np.roll(x, 1, 1) + np.roll(x, 1, 2)) / 2
    return scale * x / x.std()


def filtered(frames, noise):
    """For each frame the filter's mean, and which blocks (8, 10) it takes to be still."""
    own = TemporalFilter(*SHAPE)
    own.begin(PROFILE)
    rng = np.random.default_rng(1)
    found = []
    for frame in frames:
        own.take((frame + rng.normal(0, noise, SHAPE)).astype(np.float32))
        found.append((own.mean.copy(), own.still.reshape(8, 10).copy()))
    return found


def error(mean, frame, where=np.s_[:]):
    """Root mean square."""
    return np.sqrt(((mean - frame)[where] ** 2).mean())


def object_at(frame, x):
    """The scene with a small object, a block high and wide, whose left edge is at `x` samples."""
    at = np.arange(SHAPE[2])
    shape = np.clip(np.minimum(at - x + 1, x + 4 - at), 0, 1)
    placed = frame.copy()
    placed[:, 12:16] += 40 * shape * (1 + np.arange(SHAPE[0]) % 3 - 1)[:, None, None]
    return placed


@pytest.mark.parametrize("noise", NOISES)
def test_a_still_scene_comes_nearer_with_every_frame(noise):
    frames = [scene(1)] * (LONGEST + 8)
    found = filtered(frames, noise)
    mean, still = found[-1]
    assert still.mean() > 0.95
    assert error(mean, frames[0]) < 0.3 * noise
    assert error(found[12][0], frames[0]) < 0.5 * noise


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("speed", [0.02, 0.1, 0.5])
def test_a_small_slow_object_is_not_smeared(noise, speed):
    frames = [scene(1)] * 10 + [object_at(scene(1), 16 + speed * i) for i in range(40)]
    around = np.s_[:, 12:16, 12:40]
    for (mean, _), frame in list(zip(filtered(frames, noise), frames, strict=True))[3:]:
        assert error(mean, frame, around) < 1.1 * noise


@pytest.mark.parametrize("noise", NOISES)
def test_what_appears_is_there_at_once(noise):
    frames = [scene(1)] * 20 + [object_at(scene(1), 16)] * 2
    for mean, still in filtered(frames, noise)[20:]:
        assert error(mean, frames[-1], np.s_[:, 12:16, 16:20]) < 1.3 * noise
        assert still[6:].all()


@pytest.mark.parametrize("noise", NOISES)
def test_what_is_too_faint_for_one_frame_comes_with_time(noise):
    faint = scene(1)
    faint[:, 12:16, 16:20] += 0.4 * noise
    found = filtered([scene(1)] * 40 + [faint] * 40, noise)
    assert error(found[-1][0], faint, np.s_[:, 12:16, 16:20]) < 0.3 * noise


@pytest.mark.parametrize("noise", NOISES)
def test_exposure_that_drifts_is_followed(noise):
    frames = [(1 + 0.004 * i) * scene(1) for i in range(60)]
    for (mean, _), frame in list(zip(filtered(frames, noise), frames, strict=True))[3:]:
        assert error(mean, frame) < 1.1 * noise


@pytest.mark.parametrize("period", [2, 3, 5])
def test_flicker_is_followed(period):
    frames = [scene(1) + 20 * np.cos(2 * np.pi * i / period) for i in range(40)]
    for (mean, _), frame in list(zip(filtered(frames, 2), frames, strict=True))[3:]:
        assert error(mean, frame) < 1.1 * 2


def test_a_cut_leaves_nothing_of_the_scene_before():
    frames = [scene(1)] * 20 + [scene(2)] * 20
    found = filtered(frames, 2)
    assert error(found[20][0], frames[20]) < 1.1 * 2
    assert not found[20][1].any()
    assert found[-1][1].mean() > 0.9
    assert error(found[-1][0], frames[-1]) < 0.7 * 2


def test_nothing_is_still_where_the_whole_picture_moves():
    wide = np.concatenate([scene(1), scene(2), scene(3)], 2)
    for speed in (1, 2):
        frames = [wide[:, :, speed * i : speed * i + SHAPE[2]] for i in range(30)]
        found = filtered(frames, 2)
        assert np.mean([still.mean() for _, still in found]) < 0.02


def test_frames_without_noise_stay_as_they_are():
    frames = [scene(1)] * 4 + [object_at(scene(1), 16 + 0.1 * i) for i in range(10)]
    for (mean, _), frame in zip(filtered(frames, 0), frames, strict=True):
        assert error(mean, frame) < 1e-3


def test_the_same_frames_have_the_same_means():
    frames = [object_at(scene(1), 10 + 0.3 * i) for i in range(12)]
    for (first, _), (second, _) in zip(filtered(frames, 2), filtered(frames, 2), strict=True):
        assert np.array_equal(first, second)


def test_after_beginning_anew_no_frame_is_remembered():
    own = TemporalFilter(*SHAPE)
    own.begin(PROFILE)
    for _ in range(5):
        own.take(scene(1).astype(np.float32))
    own.begin(PROFILE)
    own.take(scene(2).astype(np.float32))
    assert np.array_equal(own.mean, scene(2).astype(np.float32))
    assert not own.still.any()


def lag(found, frames, where):
    """By how much each mean is behind its frame at `where`."""
    return np.array([(frame - mean)[where].mean() for (mean, _), frame in zip(found, frames, strict=True)])


@pytest.mark.parametrize("noise", NOISES)
def test_what_little_more_than_noise_changes_is_there_at_once(noise):
    where = np.s_[:, 12:16, 16:20]
    changed = scene(1)
    changed[where] += 1.1 * noise
    frames = [scene(1)] * 20 + [changed] * 4
    assert np.abs(lag(filtered(frames, noise), frames, where)[20:]).max() < 0.4 * noise


@pytest.mark.parametrize("noise", NOISES)
def test_a_change_too_slow_for_any_one_frame_is_followed(noise):
    where = np.s_[:, 12:16, 16:20]
    frames = []
    for i in range(160):
        frames.append(scene(1))
        frames[-1][where] += 0.02 * noise * i
    assert lag(filtered(frames, noise), frames, where)[80:].mean() < 0.4 * noise


@pytest.mark.parametrize("noise", NOISES)
def test_what_shimmers_among_what_is_still_is_coded_as_it_is(noise):
    rng = np.random.default_rng(2)
    frames = [scene(1) for _ in range(20)]
    for frame in frames:
        frame[:, 12:16, 16:20] += rng.normal(0, 4 * noise, (SHAPE[0], 4, 4))
    for _, still in filtered(frames, noise)[3:]:
        assert not still[3, 4]
        assert still.mean() > 0.8


def shaken(deviation, frames=24):
    """Which blocks (8, 10) are still after some frames of a scene, whose noise is of this deviation, (8, 10)."""
    rng = np.random.default_rng(4)
    spread = np.broadcast_to(deviation, (8, 10)).repeat(4, 0).repeat(4, 1)
    own = TemporalFilter(*SHAPE)
    own.begin(PROFILE)
    for _ in range(frames):
        own.take((scene(1) + spread * rng.normal(size=SHAPE)).astype(np.float32))
    return own.still.reshape(8, 10) == 1


@pytest.mark.parametrize(("energy", "still"), [(0.65, True), (0.9, False)])
def test_what_changes_as_much_as_a_picture_is_no_noise(energy, still):
    assert (shaken(40 * energy**0.5).mean() > 0.8) == still


@pytest.mark.parametrize(("times", "still"), [(4, True), (7, False)])
def test_what_is_much_louder_than_the_calmest_blocks_is_no_noise(times, still):
    deviation = np.full((8, 10), 2.0)
    deviation[:, 5:] *= times**0.5
    found = shaken(deviation)
    assert found[:, :5].mean() > 0.8
    assert (found[:, 5:].mean() > 0.5) == still


@pytest.mark.parametrize(("calm", "others_still"), [(15, True), (18, False)])
def test_a_fifth_of_the_blocks_tells_what_is_calm(calm, others_still):
    deviation = np.full(80, 8.0)
    deviation[:calm] = 2
    found = shaken(deviation.reshape(8, 10)).reshape(-1)
    assert (found[calm:].mean() > 0.5) == others_still


class InNumpy(TemporalFilter):
    """The filter with its decisions about all blocks at once."""

    def _judge(self, energy, persistent):
        length, age, noise, learned, candidate, steady, still = self._blocks
        age += 1
        of_frame = energy / (1 + 1 / length)
        of_trend = rules._TREND_ENERGY[np.minimum(age, rules._TREND_ENERGY.size) - 1] * (1 + 1 / length)
        least, most = TREND_SHARE**2 * np.float32(0.55), TREND_SHARE**2 * np.float32(1.1)
        alternating = (
            (length == 1) & (age == 2) & (persistent > least * energy) & (persistent < most * energy)
        )
        white = np.where(length > 1, persistent < rules.TREND * of_trend * of_frame, alternating)
        self._of_frame[:], self._white[:] = of_frame, white
        self._measure()
        plausible = of_frame < np.float32(min(rules.PLAUSIBLE * self._calm, rules.LOUDEST))
        known = plausible & (of_frame < rules.ABRUPT * noise)
        trending = persistent > rules.TREND * of_trend * noise
        going_on = known & ~trending
        ratio = rules.STEADY
        is_steady = alternating & (of_frame < ratio * candidate) & (ratio * of_frame > candidate)
        steady[:] = np.where(is_steady, steady + 1, 0)
        candidate[:] = np.where(is_steady, candidate + (of_frame - candidate) / (steady + 1), of_frame)
        found = plausible & ~going_on & (steady >= rules.STEADY_FRAMES)
        learned[:] = np.where(found, steady, learned + going_on)
        averaged = noise + (of_frame - noise) / np.clip(learned, 1, rules.LEARNED)
        noise[:] = np.where(found, candidate, np.where(going_on, averaged, noise))
        still[:] = going_on | found
        drifting = known & trending & ~found & (length > 1)
        shortened = np.where(drifting, np.maximum(np.floor(length / 2), 1), 1)
        length[:] = np.where(still, np.minimum(length + 1, LONGEST), shortened)
        moved = ~((still == 1) | drifting)
        age[moved] = 1
        return moved


@pytest.mark.parametrize("noise", NOISES)
def test_decisions_are_those_of_their_numpy_twin(noise):
    kernels, twin = TemporalFilter(*SHAPE), InNumpy(*SHAPE)
    rng = np.random.default_rng(2)
    for own in (kernels, twin):
        own.begin(PROFILE)
    drift, kinds = np.zeros(SHAPE), set()
    drift[:, :, 20:] = scene(3, 0.3 * noise)[:, :, 20:]
    for i in range(60):
        frame = object_at(scene(1), 10 + 0.3 * i) + drift * max(i - 30, 0)
        frame = (frame + rng.normal(0, noise, SHAPE)).astype(np.float32)
        for own in (kernels, twin):
            own.take(frame)
        for ours, theirs in zip(kernels._blocks, twin._blocks, strict=True):
            assert np.array_equal(ours, theirs)
        assert np.array_equal(kernels._white, twin._white)
        assert np.array_equal(kernels.mean, twin.mean)
        kinds |= set(zip(twin.still.tolist(), (twin._blocks.length > 1).tolist(), strict=True))
    assert kinds == {(1, True), (0, True), (0, False)}  # still, drifting, moved


@pytest.mark.parametrize("blocks", [1, 2, 3, 6, 7, 220, 301])
def test_the_calmest_blocks_are_those_of_numpys_quantile(blocks):
    energy = np.random.default_rng(blocks).exponential(size=blocks).astype(np.float32)
    found = rules._calm_energy(energy, np.empty_like(energy))
    assert found == pytest.approx(np.quantile(energy, rules.CALM_SHARE), rel=1e-6)
