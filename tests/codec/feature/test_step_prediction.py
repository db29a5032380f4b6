"""The prediction of each block's step: measures as numpy's, a network as its definition says, bounded changes."""

from __future__ import annotations

import numpy as np
import pytest

from codec.feature.contexts import MAX_CHANGE
from codec.feature.step_network import HIDDEN, MIXED, StepNetwork
from codec.feature.step_prediction import StepPredictor, measure, predict_sensitivity, workspace_for
from tests.codec.calibrated import make_network

DOWN, ACROSS, COMPONENTS = 2, 3, 4


def planes_and_offset(seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    planes = (rng.normal(50, 300, (COMPONENTS, 4 * DOWN, 4 * ACROSS)) * scale).astype(np.float32)
    return planes, rng.normal(0, 40, COMPONENTS).astype(np.float32)


def measures_of(planes, offset):
    measures = np.full((COMPONENTS, 3, DOWN * ACROSS), np.nan, np.float32)
    measure(planes, offset, measures, np.empty((2, 4 * ACROSS), np.float32))
    return measures


def test_measures_are_mean_its_magnitude_and_deviation():
    planes, offset = planes_and_offset()
    blocks = (planes - offset[:, None, None]).astype(np.float64)
    blocks = blocks.reshape(COMPONENTS, DOWN, 4, ACROSS, 4).swapaxes(2, 3).reshape(COMPONENTS, -1, 16)
    mean = blocks.mean(2)
    expected = np.stack((mean, np.abs(mean), blocks.std(2)), 1)
    assert np.allclose(measures_of(planes, offset), expected, rtol=1e-4, atol=1e-2)


def test_the_deviation_of_an_even_block_is_no_root_of_less_than_nothing():
    planes = np.full((COMPONENTS, 4 * DOWN, 4 * ACROSS), 12345.67, np.float32)
    measures = measures_of(planes, np.zeros(COMPONENTS, np.float32))
    assert np.isfinite(measures).all()
    assert (measures[:, 2] < 40).all()


def slow_network(network, measures):
    """Place by place, as the docstring says it."""
    _, down, across = measures.shape

    def at(planes, y, x):
        return planes[:, min(max(y, 0), down - 1), min(max(x, 0), across - 1)]

    def convolve(planes, filters, bias):
        out = np.zeros((len(filters), down, across))
        for y in range(down):
            for x in range(across):
                around = [[at(planes, y + i, x + j) for j in (-1, 0, 1)] for i in (-1, 0, 1)]
                out[:, y, x] = np.einsum("ocij,ijc->o", filters.astype(np.float64), np.array(around)) + bias
        return np.maximum(out, 0)

    mixed = np.tensordot(network.mix.astype(np.float64), measures, 1) + network.mix_bias[:, None, None]
    planes = convolve(np.maximum(mixed[:MIXED], 0), network.first, network.first_bias)
    planes = convolve(planes, network.second, network.second_bias)
    out = np.tensordot(network.output, planes, 1) + mixed[MIXED]
    for y in range(down):
        for x in range(across):
            around = [at(mixed[MIXED + 1 :], y + i, x + j)[0] for j in (-1, 0, 1) for i in (-1, 0, 1)]
            out[y, x] += np.mean(around)
    return out


def predict(network, measures):
    """The network on measures (3 K, down, across)."""
    return predict_sensitivity(network, measures, workspace_for(*measures.shape[1:]))


def test_the_network_is_its_definition():
    rng = np.random.default_rng(3)
    network = make_network(COMPONENTS, rng)
    measures = rng.normal(0, 100, (3 * COMPONENTS, 4, 5)).astype(np.float32)
    predicted = predict(network, measures)
    assert predicted.std() > 0.01
    assert np.allclose(predicted, slow_network(network, measures), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (4, 1), (3, 5)])
def test_the_network_is_its_definition_however_small_the_frame(shape):
    rng = np.random.default_rng(5)
    network = make_network(COMPONENTS, rng)
    measures = rng.normal(0, 100, (3 * COMPONENTS, *shape)).astype(np.float32)
    assert np.allclose(predict(network, measures), slow_network(network, measures), rtol=1e-4, atol=1e-4)


def test_a_scaled_network_predicts_the_same_from_scaled_measures():
    rng = np.random.default_rng(4)
    network = make_network(COMPONENTS, rng)
    measures = rng.normal(0, 100, (3 * COMPONENTS, 2, 3)).astype(np.float32)
    scaled = predict(network.scaled(0.25), measures * np.float32(0.25))
    assert np.allclose(scaled, predict(network, measures), rtol=1e-4, atol=1e-4)


def test_the_flat_network_changes_no_step():
    planes, offset = planes_and_offset()
    predictor = StepPredictor(StepNetwork.flat(COMPONENTS), offset, DOWN, ACROSS)
    assert predictor.changes(planes, 1.25).tolist() == [0] * (DOWN * ACROSS)


def constant_network(value):
    """Says the same of each block: in its last mixture but one, which is of the block itself."""
    network = StepNetwork.flat(COMPONENTS)
    network.mix_bias[MIXED] = value
    return network


@pytest.mark.parametrize(
    ("sensitivity", "step_shaping", "change"), [(2, 1, -6), (-2, 1, 6), (2, 0.5, -3), (2, 0, 0)]
)
def test_a_change_is_the_inverse_square_root_of_the_sensitivity(sensitivity, step_shaping, change):
    """Two nats more: a step 2.72 times finer, which is 5.8 quarters of an octave."""
    planes, offset = planes_and_offset()
    predictor = StepPredictor(constant_network(sensitivity), offset, DOWN, ACROSS)
    changes = predictor.changes(planes, step_shaping)
    assert changes.dtype == np.int8
    assert changes.tolist() == [change] * (DOWN * ACROSS)


@pytest.mark.parametrize("value", [1e3, -1e3, 3e38, -3e38])
def test_changes_are_bounded(value):
    planes, offset = planes_and_offset()
    changes = StepPredictor(constant_network(value), offset, DOWN, ACROSS).changes(planes, 1.25)
    assert changes.tolist() == [-MAX_CHANGE if value > 0 else MAX_CHANGE] * (DOWN * ACROSS)


def test_frames_that_overflow_the_network_get_some_step():
    network = make_network(COMPONENTS, np.random.default_rng(0))
    huge = StepNetwork(**{name: getattr(network, name) * np.float32(1e12) for name in StepNetwork.shapes(1)})
    planes, offset = planes_and_offset(scale=1000)
    changes = StepPredictor(huge, offset, DOWN, ACROSS).changes(planes, 1.25)
    assert np.abs(changes).max() <= MAX_CHANGE


def test_shapes_are_those_of_the_profile():
    shapes = StepNetwork.shapes(7)
    assert shapes["mix"] == (MIXED + 2, 21)
    assert shapes["second"] == (HIDDEN, HIDDEN, 3, 3)
