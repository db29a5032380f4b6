"""Calibration: the transform that its definition asks for, the same for the same samples, clear refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from codec.errors import CalibrationError, ProfileError
from codec.feature import calibration
from codec.feature.calibration import CalibrationSample, calibrate
from codec.feature.codec import Feature
from codec.feature.profile import Profile
from codec.feature.step_network import StepNetwork
from codec.feature.transform import rotated_spectrum
from codec.layout import TensorSpec
from codec.packet import Stamp

CHANNELS, HEIGHT, WIDTH = 4, 8, 12
LAYOUT = (TensorSpec("4.m", (CHANNELS, HEIGHT, WIDTH)),)
MIXTURE = np.random.default_rng(9).normal(size=(CHANNELS, CHANNELS)) @ np.diag([3, 1, 0.5, 0.2])
SLOPES = np.random.default_rng(8).normal(size=(CHANNELS, CHANNELS)) @ np.diag([0.2, 0.5, 1, 2])


def smooth(x):
    for _ in range(2):
        x = (x + np.roll(x, 1, -1) + np.roll(x, 1, -2)) / 1.7
    return x


def sample(seed, scale=1.0, height=HEIGHT, width=WIDTH):
    rng = np.random.default_rng(seed)
    tensors = scale * (np.tensordot(MIXTURE, smooth(rng.normal(size=(CHANNELS, height, width))), 1) + 2)
    gradients = [np.tensordot(SLOPES, rng.normal(size=(CHANNELS, height, width)), 1) / 50 for _ in range(2)]
    return CalibrationSample(
        {"4.m": tensors.astype(np.float32)}, [{"4.m": gradient.astype(np.float32)} for gradient in gradients]
    )


def samples(count=20, **options):
    return lambda: (sample(seed, **options) for seed in range(count))


def flat(examples, seed):
    """The trainer that learns nothing."""
    return StepNetwork.flat(examples[0].measures.shape[0] // 3)


def moments(source):
    tensors = np.concatenate([each.tensors["4.m"].reshape(CHANNELS, -1) for each in source()], 1)
    slopes = [gradient["4.m"].reshape(CHANNELS, -1) for each in source() for gradient in each.gradients]
    slopes = np.concatenate(slopes, 1).astype(np.float64)
    return np.cov(tensors.astype(np.float64), bias=True), slopes @ slopes.T / slopes.shape[1], tensors.mean(1)


@pytest.fixture(scope="module")
def profile():
    return calibrate(samples(), flat, {"images": 20})


def test_the_inverse_is_the_inverse(profile):
    (group,) = profile.groups
    product = group.inverse.astype(np.float64) @ group.forward
    assert np.allclose(product, np.eye(CHANNELS), atol=1e-5)


def test_the_transform_makes_components_independent_and_equally_important(profile):
    (group,) = profile.groups
    covariance, information, mean = moments(samples())
    forward, inverse = group.forward.astype(np.float64), group.inverse.astype(np.float64)
    components = forward @ covariance @ forward.T
    spread = np.sqrt(np.diag(components))
    correlation = components / np.outer(spread, spread)
    assert np.allclose(correlation, np.eye(CHANNELS), atol=1e-4)
    assert (np.diff(spread) < 0).all()
    # A change by one unit of a component changes the detections as much as one of any other.
    notice = inverse.T @ information @ inverse
    unit = calibration.UNIT * 2 ** (-int(group.step_offset[0]) / 16)
    assert np.allclose(notice, unit**2 * np.eye(CHANNELS), atol=1e-4 * unit**2)
    assert np.allclose(group.mean, mean, atol=1e-4)


def test_components_that_the_detections_do_not_depend_on_are_kept_small():
    """The Fisher information has a floor, so that nothing is ever scaled by infinity."""

    def blind():
        for each in samples()():
            gradients = [{"4.m": gradient["4.m"].copy()} for gradient in each.gradients]
            for gradient in gradients:
                gradient["4.m"][0] = 0
            yield CalibrationSample(each.tensors, gradients)

    (group,) = calibrate(blind, flat, {}).groups
    assert np.allclose(group.inverse.astype(np.float64) @ group.forward, np.eye(CHANNELS), atol=1e-3)


def test_priors_are_mean_magnitudes_of_coefficients(profile):
    (group,) = profile.groups
    coefficients = []
    for each in samples()():
        planes = np.tensordot(group.forward, each.tensors["4.m"], 1)
        coefficients.append(np.abs(rotated_spectrum(group.rotation, planes, group.forward @ group.mean)))
    expected = np.concatenate(coefficients, 2).mean(2)
    assert np.abs(group.prior - np.maximum(expected, 1)).max() < 1 + 1e-3 * expected.max()


def test_rotated_coefficients_are_uncorrelated_at_each_frequency_and_fall(profile):
    (group,) = profile.groups
    coefficients = np.concatenate(
        [
            rotated_spectrum(
                group.rotation,
                np.tensordot(group.forward, each.tensors["4.m"], 1),
                group.forward @ group.mean,
            )
            for each in samples()()
        ],
        2,
    ).astype(np.float64)
    for f in range(16):
        covariance = coefficients[:, f] @ coefficients[:, f].T
        spread = np.sqrt(np.diag(covariance))
        # The rotation is rounded, and what two components have in common is a part of the greater one.
        assert np.abs(covariance - np.diag(spread**2)).max() < 2e-3 * spread[0] ** 2
        assert (np.diff(spread) < 0).all()


def test_large_samples_are_shrunk_to_16_bits_and_the_steps_with_them():
    source = samples(scale=30)
    (group,) = calibrate(source, flat, {}).groups
    largest = max(
        np.abs(np.tensordot(group.forward, each.tensors["4.m"] - group.mean[:, None, None], 1)).max()
        for each in source()
    )
    assert group.step_offset[0] < 0
    assert 0.9 * calibration.LARGEST < largest < 1.03 * calibration.LARGEST
    assert np.allclose(group.inverse.astype(np.float64) @ group.forward, np.eye(CHANNELS), atol=1e-4)


def test_equal_samples_make_equal_profiles(profile):
    assert calibrate(samples(), flat, {"images": 20}).hash == profile.hash
    assert calibrate(samples(21), flat, {"images": 20}).hash != profile.hash


def test_a_profile_parses_and_carries_its_metadata(profile):
    parsed = Profile.parse(profile.pack())
    assert parsed == profile
    assert parsed.metadata == {"images": 20}


def test_the_trainer_gets_every_picture_its_variants_and_the_seed():
    seen = []

    def trainer(examples, seed):
        seen.extend(examples)
        assert seed == 5
        return flat(examples, seed)

    calibrate(samples(), trainer, {}, seed=5, variants=[sample(99, height=10, width=9)])
    assert len(seen) == 21
    assert seen[0].measures.shape == (3 * CHANNELS, 2, 3)
    assert seen[0].log_sensitivity.shape == (2, 3)
    assert seen[-1].measures.shape == (3 * CHANNELS, 3, 3)
    assert all(np.isfinite(example.log_sensitivity).all() for example in seen)


def test_sensitivity_is_the_information_of_a_block():
    """A block whose samples matter twice as much in each draw has log 4 more of it."""

    def louder():
        for each in samples()():
            for gradient in each.gradients:
                gradient["4.m"][:, :4, :4] *= 8
            yield each

    seen = []

    def trainer(examples, seed):
        seen.extend(examples)
        return flat(examples, seed)

    calibrate(louder, trainer, {})
    mean = np.mean([example.log_sensitivity for example in seen], 0)
    assert abs(mean[0, 0] - np.log(64) - mean.ravel()[1:].mean()) < 0.5


def coded_bytes(codec):
    encoder, decoder = codec.encoder(LAYOUT), codec.decoder(LAYOUT)
    size, error = 0, 0.0
    for seed in range(100, 110):
        frame = sample(seed).tensors
        packet = encoder.encode(frame, Stamp(2 * seed, 0)).data
        size += len(packet)
        error += float(((decoder.decode(packet).tensors["4.m"] - frame["4.m"]) ** 2).mean())
    return size, error


def test_the_contexts_are_fitted(profile):
    """Coded with the start that calibration counted, frames take fewer bytes than with one that knows nothing."""
    (group,) = profile.groups
    ignorant = replace(group, probabilities=np.full_like(group.probabilities, 16384))
    size, error = coded_bytes(Feature(profile=profile))
    other_size, other_error = coded_bytes(Feature(profile=Profile((ignorant,))))
    assert size < other_size
    assert error == other_error


def two_groups(**options):
    def both():
        for seed, each in enumerate(samples(**options)()):
            other = sample(seed + 1000, height=4, width=4)
            tensors = {"6": other.tensors["4.m"][:2], **each.tensors}
            pairs = zip(other.gradients, each.gradients, strict=True)
            yield CalibrationSample(tensors, [{"6": first["4.m"][:2], **second} for first, second in pairs])

    return calibrate(both, flat, {"images": 20}).groups


def test_several_groups_are_calibrated_each_by_itself(profile):
    small, large = two_groups()
    assert (small.channels, large.channels) == (2, CHANNELS)
    assert np.array_equal(large.forward, profile.groups[0].forward)


def test_a_step_means_the_same_in_every_group():
    """One group's samples have to be shrunk: the other's are too, or the frame's one step would favor it."""
    small, large = two_groups(scale=30)
    (alone,) = calibrate(samples(scale=30), flat, {}).groups
    assert small.step_offset[0] == large.step_offset[0] == alone.step_offset[0] < 0
    shrunk = 2 ** (int(alone.step_offset[0]) / 16)
    plain, _ = two_groups()
    assert np.allclose(small.forward, plain.forward * shrunk, rtol=1e-4)


# --- refusals ---


def test_too_few_samples_are_refused():
    with pytest.raises(CalibrationError, match="15 samples; calibration needs 16"):
        calibrate(samples(15), flat, {})


def test_no_samples_are_refused():
    with pytest.raises(CalibrationError, match="0 samples"):
        calibrate(list, flat, {})


def test_samples_without_gradients_are_refused():
    def without():
        yield from samples(16)()
        yield CalibrationSample(sample(1).tensors, [])

    with pytest.raises(CalibrationError, match="gradients"):
        calibrate(without, flat, {})


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["tensors", "gradients"])
def test_samples_that_are_not_finite_are_refused(bad, where):
    def broken():
        for seed, each in enumerate(samples()()):
            if seed == 3:
                array = each.tensors["4.m"] if where == "tensors" else each.gradients[1]["4.m"]
                array[1, 2, 3] = bad
            yield each

    with pytest.raises(CalibrationError, match="NaN"):
        calibrate(broken, flat, {})


def test_samples_of_other_channels_are_refused():
    def mixed():
        for seed, each in enumerate(samples()()):
            cut = slice(None, 3 if seed == 7 else None)
            gradients = [{"4.m": gradient["4.m"][cut]} for gradient in each.gradients]
            yield CalibrationSample({"4.m": each.tensors["4.m"][cut]}, gradients)

    with pytest.raises(CalibrationError, match="channels"):
        calibrate(mixed, flat, {})


def test_samples_that_change_from_pass_to_pass_are_refused():
    passes = []

    def changing():
        passes.append(len(passes))
        more = {"6": np.ones((1, 4, 4), np.float32)} if len(passes) > 1 else {}
        for each in samples()():
            yield CalibrationSample(each.tensors | more, [gradient | more for gradient in each.gradients])

    with pytest.raises(CalibrationError, match="channels"):
        calibrate(changing, flat, {})


def test_detections_that_depend_on_nothing_are_refused():
    def blind():
        for each in samples()():
            yield CalibrationSample(
                each.tensors, [{"4.m": 0 * gradient["4.m"]} for gradient in each.gradients]
            )

    with pytest.raises(CalibrationError, match="depend"):
        calibrate(blind, flat, {})


@pytest.mark.parametrize("where", ["tensors", "gradients"])
def test_samples_beyond_the_numbers_of_a_profile_are_refused(where):
    def large():
        for each in samples()():
            array = each.tensors["4.m"] if where == "tensors" else each.gradients[1]["4.m"]
            array *= np.float32(1e37)
            yield each

    with pytest.raises(CalibrationError, match="beyond"):
        calibrate(large, flat, {})


@pytest.mark.parametrize("value", [0, 3])
def test_tensors_that_never_change_are_calibrated_too(value):
    """All of one group, as a network may have it for one kind of picture: its components are all 0."""

    def with_constant():
        for seed, each in enumerate(samples()()):
            slopes = np.random.default_rng(seed).normal(size=(2, 4, 4)).astype(np.float32)
            gradients = [gradient | {"6": slopes} for gradient in each.gradients]
            yield CalibrationSample(each.tensors | {"6": np.full((2, 4, 4), value, np.float32)}, gradients)

    def constant():
        for each in with_constant():
            yield CalibrationSample(
                {"6": each.tensors["6"]}, [{"6": gradient["6"]} for gradient in each.gradients]
            )

    for source in (with_constant, constant):
        profile = calibrate(source, flat, {})
        assert Profile.parse(profile.pack()) == profile
        layout = tuple(TensorSpec(name, x.shape) for name, x in next(source()).tensors.items())
        codec = Feature(profile=profile, quality=9)
        packet = codec.encoder(layout).encode(next(source()).tensors, Stamp(0, 0)).data
        assert np.allclose(codec.decoder(layout).decode(packet).tensors["6"], value, atol=1e-3)


def test_more_channels_than_a_profile_holds_are_refused_at_the_first_sample():
    taken = []

    def wide():
        for seed in range(16):
            taken.append(seed)
            tensors = {"9": np.ones(2049, np.float32)}
            yield CalibrationSample(tensors, [tensors])

    with pytest.raises(ProfileError, match="2049 channels"):
        calibrate(wide, flat, {})
    assert taken == [0]


def test_samples_of_several_sizes_are_taken():
    sizes = [(8, 12), (5, 7), (16, 4)]

    def varied():
        for seed in range(18):
            height, width = sizes[seed % 3]
            yield sample(seed, height=height, width=width)

    (group,) = calibrate(varied, flat, {}).groups
    assert np.allclose(group.inverse.astype(np.float64) @ group.forward, np.eye(CHANNELS), atol=1e-4)
