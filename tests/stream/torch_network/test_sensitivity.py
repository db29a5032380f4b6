"""Fisher samples against numerical derivatives, and against the metric of which they are samples."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from codec.errors import BadStepMap, ProfileMismatch
from codec.feature.codec import Feature
from codec.feature.profile import grouped, stack
from codec.feature.step_map import block_energy, pack_step_map
from stream.errors import UnknownSplitPoint
from stream.network.cut import halves, layout, split_points
from stream.torch_network import sensitivity
from stream.torch_network.anchor_free_head import AnchorFreeDetect
from stream.torch_network.anchor_head import AnchorDetect
from stream.torch_network.graph import run
from stream.torch_network.model import Model, random_model
from stream.torch_network.sensitivity import StepMapper, fisher_samples, weighted_outputs
from stream.torch_network.split import TorchHead, Unsplit
from tests.services.calibrated import make_profile

SIZE = (64, 96)
IMAGE = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
NAMES = ["yolov5n", "yolov5nu"]


@cache
def network(name: str) -> Model:
    return random_model(name)


class Ones:
    """In the place of a random generator: every sign is +1."""

    def integers(self, low, high, size, dtype):
        return np.ones(size, dtype)


class Outputs:
    """The detection head's outputs that count, as one vector in double precision, of tensors that crossed."""

    def __init__(self, name: str, split: str) -> None:
        _, tail = halves(network(name).graph, split)
        *self.body, self.detect = (replace(node, module=copy.deepcopy(node.module).double()) for node in tail)

    @torch.no_grad()
    def parts(self, tensors):
        """The raw outputs in the shapes in which the head gives them."""
        crossing = {
            name: torch.as_tensor(tensor, dtype=torch.float64)[None] for name, tensor in tensors.items()
        }
        features = list(run(self.body, crossing, self.detect.inputs).values())
        head = self.detect.module
        outputs = head.logits(features) if isinstance(head, AnchorDetect) else head.raw(features)
        return [part.numpy() for part in outputs]

    def __call__(self, tensors):
        return np.concatenate([part.ravel() for part in self.parts(tensors)])

    def weights(self, tensors):
        """The weights as the design's formulas write them, one output after the other."""
        parts = self.parts(tensors)
        written = anchor_free_weights(*parts) if len(parts) == 2 else map(anchor_weights, parts)
        return np.concatenate([weights.ravel() for weights in written])

    def moved(self, tensors, direction, step=1e-6):
        """How the outputs change along a direction, by central differences."""
        ends = [
            self({name: tensors[name] + sign * step * direction[name] for name in tensors})
            for sign in (1, -1)
        ]
        return (ends[0] - ends[1]) / (2 * step)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def anchor_weights(logits):
    weights = np.empty_like(logits)
    p = sigmoid(logits)
    for anchor in np.ndindex(logits.shape[1]):
        at = (0, *anchor)
        po, pc = p[at][4], p[at][5:]
        confidence = po * pc.max(0)
        for axis in range(2):
            x, width = p[at][axis], p[at][2 + axis]
            weights[at][axis] = 4 * confidence**0.5 * 2 * x * (1 - x) / np.maximum(0.3, 3 * (2 * width) ** 2)
            weights[at][2 + axis] = 4 * confidence**0.5 * 2 * (1 - width)
        weights[at][4] = (po * (1 - po)) ** 0.5
        weights[at][5:] = (po * pc * (1 - pc)) ** 0.5
    return weights


def anchor_free_weights(distances, scores):
    p = sigmoid(scores)
    left, top, right, bottom = distances[0]
    box = 4 * p[0].max(0) ** 0.5
    width, height = np.maximum(0.3, left + right), np.maximum(0.3, top + bottom)
    return np.stack((box / width, box / height, box / width, box / height)), (p * (1 - p)) ** 0.5


def random_direction(tensors, rng):
    return {name: rng.standard_normal(tensor.shape) for name, tensor in tensors.items()}


def dot(gradient, direction):
    return sum(float((gradient[name] * direction[name]).sum()) for name in gradient)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("split", ["0", "4.m", "9", "13.m", "23"])
def test_a_sample_is_the_gradient_of_the_weighted_outputs(name, split):
    """Along random directions, with every sign +1 and the weights held where the picture has them."""
    sample = fisher_samples(network(name), split, IMAGE, 1, Ones())
    outputs = Outputs(name, split)
    weights = outputs.weights(sample.tensors)
    rng = np.random.default_rng(1)
    for _ in range(3):
        direction = random_direction(sample.tensors, rng)
        expected = weights @ outputs.moved(sample.tensors, direction)
        scale = np.linalg.norm(weights * outputs.moved(sample.tensors, direction))
        assert dot(sample.gradients[0], direction) == pytest.approx(expected, rel=1e-3, abs=1e-3 * scale)


@pytest.mark.parametrize("name", NAMES)
def test_samples_have_the_metric_as_their_second_moment(name):
    """E[(v'g)(u'g)] is the sum over all outputs of w^2 (Jv)(Ju), for directions u and v that are random but fixed."""
    draws, split = 400, "13.m"
    sample = fisher_samples(network(name), split, IMAGE, draws, np.random.default_rng(0))
    outputs = Outputs(name, split)
    rng = np.random.default_rng(2)
    directions = [random_direction(sample.tensors, rng) for _ in range(6)]
    weights = outputs.weights(sample.tensors)
    moved = np.stack([weights * outputs.moved(sample.tensors, direction) for direction in directions])
    exact = moved @ moved.T
    found = np.array(
        [[dot(gradient, direction) for direction in directions] for gradient in sample.gradients]
    )
    scale = np.sqrt(np.outer(exact.diagonal(), exact.diagonal()))
    # An entry's mean over the draws has a standard deviation of (2 / draws)**.5 = .07 of the scale at most.
    np.testing.assert_allclose(found.T @ found / draws / scale, exact / scale, atol=0.28)
    # The mean of all entries' errors is far smaller, so that a wrong factor cannot hide in the tolerance.
    assert np.trace(found.T @ found / draws / scale) == pytest.approx(len(directions), rel=0.15)
    assert np.abs(found.mean(0) / np.sqrt(exact.diagonal())).max() < 0.25  # no output prefers a sign


@pytest.mark.parametrize("name", NAMES)
def test_the_tensors_are_the_heads_at_every_split_point(name):
    model = network(name)
    for split in split_points(model.graph):
        sample = fisher_samples(model, split, IMAGE, 1, np.random.default_rng(0))
        expected = TorchHead(model, split, SIZE)(IMAGE)
        assert list(sample.tensors) == [spec.name for spec in layout(model.graph, split, SIZE)]
        (gradient,) = sample.gradients
        assert list(gradient) == list(sample.tensors)
        for tensor in expected:
            assert np.array_equal(sample.tensors[tensor], expected[tensor]), split
            assert gradient[tensor].shape == expected[tensor].shape
            assert gradient[tensor].dtype == np.float32
            assert np.isfinite(gradient[tensor]).all()
            assert gradient[tensor].any(), (split, tensor)


@pytest.mark.parametrize("name", NAMES)
def test_draws_follow_the_generator_alone(name):
    def gradients(seed, draws=2):
        sample = fisher_samples(network(name), "4.m", IMAGE, draws, np.random.default_rng(seed))
        return [np.concatenate([part.ravel() for part in gradient.values()]) for gradient in sample.gradients]

    first, second = gradients(0)
    again = gradients(0)
    assert np.array_equal(first, again[0])
    assert np.array_equal(second, again[1])
    assert np.array_equal(first, gradients(0, draws=1)[0])
    for other in (second, gradients(1)[0]):
        assert abs(np.corrcoef(first, other)[0, 1]) < 0.9
    assert gradients(0, draws=0) == []


@pytest.mark.parametrize("name", NAMES)
def test_the_model_is_left_as_it_was(name):
    model = random_model(name)
    before = Unsplit(model)(IMAGE)
    states = [copy.deepcopy(node.module.state_dict()) for node in model.graph.nodes]
    with torch.no_grad():  # as a caller may have it
        fisher_samples(model, "4.m", IMAGE, 2, np.random.default_rng(0))
    for node, state in zip(model.graph.nodes, states, strict=True):
        assert all(torch.equal(value, state[key]) for key, value in node.module.state_dict().items())
        assert not any(value.requires_grad or value.grad is not None for value in node.module.parameters())
    assert torch.equal(Unsplit(model)(IMAGE), before)


def logit(p):
    return float(np.log(p / (1 - p)))


@torch.no_grad()
def test_weights_of_an_anchors_logits():
    """One cell of one class: x .5, y .8, a width of 3 cells and a height below the least, .9 object, .4 class."""
    head = AnchorDetect(classes=1, channels=[1], anchors_per_level=1)
    head.m[0].weight.zero_()
    head.m[0].bias.copy_(torch.tensor([logit(p) for p in (0.5, 0.8, 0.5, 0.1, 0.9, 0.4)]))
    ((_, weights),) = weighted_outputs(head, [torch.zeros(1, 1, 1, 1)])
    box = 4 * 0.36**0.5
    expected = [box * 0.5 / 3, box * 0.32 / 0.3, box * 1.0, box * 1.8, 0.3, (0.9 * 0.4 * 0.6) ** 0.5]
    assert weights.flatten().tolist() == pytest.approx(expected, rel=1e-5)


def test_weights_of_distances():
    """One cell of two classes, .25 and .64: a box 9 cells wide and lower than the least."""
    head = AnchorFreeDetect(nc=2, ch=(16,))

    def place(path, *values):
        layer = path[0][-1]
        layer.weight.zero_()
        layer.bias.copy_(torch.tensor(values))

    with torch.no_grad():
        bins = torch.full((4, 16), -40.0)
        bins[range(4), [2, 0, 7, 0]] = 40  # left, top, right, bottom
        place(head.cv2, *bins.flatten().tolist())
        place(head.cv3, logit(0.25), logit(0.64))
        (distances, sides), (scores, classes) = weighted_outputs(head.eval(), [torch.zeros(1, 16, 1, 1)])
    assert distances.flatten().tolist() == pytest.approx([2, 0, 7, 0], abs=1e-5)
    assert sides.flatten().tolist() == pytest.approx([3.2 / 9, 3.2 / 0.3, 3.2 / 9, 3.2 / 0.3])
    assert scores.flatten().tolist() == pytest.approx([logit(0.25), logit(0.64)])
    assert classes.flatten().tolist() == pytest.approx([(0.25 * 0.75) ** 0.5, 0.48])


def test_an_unknown_split_point_is_refused():
    with pytest.raises(UnknownSplitPoint):
        fisher_samples(network("yolov5n"), "24", IMAGE, 1, np.random.default_rng(0))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("split", ["4.m", "9"])
def test_a_step_map_has_the_energy_of_one_sample(name, split, monkeypatch):
    """Energies themselves, as random weights find no block much more important than another."""
    packed = []
    monkeypatch.setattr(
        sensitivity, "pack_step_map", lambda energies: packed.append(energies) or pack_step_map(energies)
    )
    model, tensors_of = network(name), layout(network(name).graph, split, SIZE)
    profile = make_profile(tensors_of)
    sample = fisher_samples(model, split, IMAGE, 1, np.random.default_rng(5))
    mapper = StepMapper(model, split, tensors_of, profile, seed=5)
    groups = list(zip(grouped(tensors_of), profile.groups, strict=True))
    energies = [block_energy(group.inverse, stack(sample.gradients[0], specs)) for specs, group in groups]
    step_map = mapper(sample.tensors)
    assert step_map == pack_step_map(energies)
    assert len(step_map) == Feature(profile=profile).encoder(tensors_of).step_map_bytes
    mapper(sample.tensors)  # with other signs
    for first, second, expected in zip(*packed, energies, strict=True):
        np.testing.assert_allclose(first, expected, rtol=1e-5)
        assert not np.allclose(second, expected, rtol=1e-3)


def test_a_frame_that_is_not_finite_has_no_step_map():
    tensors_of = layout(network("yolov5n").graph, "4.m", SIZE)
    mapper = StepMapper(network("yolov5n"), "4.m", tensors_of, make_profile(tensors_of))
    with pytest.raises(BadStepMap):
        mapper({spec.name: np.full(spec.shape, np.inf, np.float32) for spec in tensors_of})


def test_a_profile_of_other_tensors_maps_nothing():
    tensors_of = layout(network("yolov5n").graph, "4.m", SIZE)
    with pytest.raises(ProfileMismatch):
        StepMapper(network("yolov5n"), "4.m", tensors_of, make_profile(tensors_of[:1]))
