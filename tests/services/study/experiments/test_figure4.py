"""Grad-CAM against finite differences on a tiny network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from services.study.experiments.figure4 import describe, figure4, gradients, most_relevant, relevance
from stream.network.graph import INPUT
from stream.torch_network.graph import ModuleGraph, ModuleNode
from tests.services.study.records import StudyFactory, record


class _Tiny:
    """Two layers, cut between them; smooth, so that differences converge."""

    split = "1"
    device = torch.device("cpu")

    def __init__(self) -> None:
        torch.manual_seed(0)
        tail = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(16, 5)).double()
        self.graph = ModuleGraph(
            (
                ModuleNode("1", nn.Identity(), (INPUT,), takes_list=False),
                ModuleNode("2", tail, ("1",), takes_list=False),
            )
        )

    def certainty(self, prediction: torch.Tensor) -> torch.Tensor:
        return prediction.amax()


def test_gradients_and_maps_agree_with_finite_differences() -> None:
    subject = _Tiny()
    tensor = np.random.default_rng(0).normal(size=(3, 4, 4))
    certainty, slopes = gradients(subject, {"1": tensor})  # type: ignore[arg-type]

    def score(values: np.ndarray) -> float:
        with torch.no_grad():
            return float(subject.graph.nodes[1].module(torch.from_numpy(values)[None]).max())

    assert certainty == pytest.approx(score(tensor))
    slow = np.zeros_like(tensor)
    for index in np.ndindex(*tensor.shape):
        nudge = np.zeros_like(tensor)
        nudge[index] = 1e-5
        slow[index] = (score(tensor + nudge) - score(tensor - nudge)) / 2e-5
    np.testing.assert_allclose(slopes["1"], slow, atol=1e-7)
    np.testing.assert_allclose(relevance(tensor, slopes["1"], "gradient"), np.abs(slow), atol=1e-7)
    expected = np.zeros((4, 4))
    for y in range(4):
        for x in range(4):
            weighted = sum(slow[c].sum() / 16 * tensor[c, y, x] for c in range(3))
            expected[y, x] = max(weighted, 0)
    found = relevance(tensor, slopes["1"], "map")
    for channel in range(3):
        np.testing.assert_allclose(found[channel], expected, atol=1e-6)


def test_exactly_the_share_is_relevant_and_ties_go_to_the_first() -> None:
    relevant = np.array([[[1, 5, 5, 5]], [[0, 9, 2, 3]]], np.float32)
    assert np.flatnonzero(most_relevant(relevant, 0.25)).tolist() == [1, 5]
    assert np.flatnonzero(most_relevant(relevant, 0.5)).tolist() == [1, 2, 3, 5]
    assert most_relevant(np.zeros((2, 5, 10), np.float32)).sum() == 10


def test_nulls_are_counted_among_the_relevant_and_among_all() -> None:
    tensor = np.array([[[0, 0, 4, -4, 0.001, 2, 3, 1]]], np.float32)
    chosen = np.array([[[True, False, True, False, False, False, False, False]]])
    found = describe(tensor, chosen)
    assert found["nulls"] == 0.5
    assert found["all_nulls"] == 3 / 8
    assert found["nulls_relevant"] == pytest.approx(1 / 3, rel=1e-5)
    assert found["mean"] == 2
    assert found["quantiles"][0] == 0
    assert found["quantiles"][-1] == 4


def test_pictures_in_which_nothing_is_certain_are_counted_out(make_study: StudyFactory) -> None:
    study = make_study()
    (subject,) = study.subjects
    figure4.measure(study)
    (counted,) = [one for one in study.book.of("figure4") if "certain" in one.values]
    sure = sum(
        float(subject.certainty(subject.finish(sample.tensors))) > 0
        for sample in study.samples(subject, study.stills(subject))
    )
    assert counted.values == {"pictures": 3, "certain": sure}
    before = study.book.path.read_text()
    figure4.measure(make_study())
    assert study.book.path.read_text() == before
    assert figure4.present(study.book.of("figure4")).notes


@pytest.mark.parametrize(
    ("mean", "nulls", "verdict"),
    [(2.0, 0.4, "agrees; nulls are about as frequent"), (0.5, 0.1, "does not agree; nulls are much rarer")],
)
def test_the_verdict_follows_the_numbers(mean: float, nulls: float, verdict: str) -> None:
    values = {
        "quantiles": [0.0] * 105, "all_quantiles": [0.0] * 105, "nulls": nulls, "all_nulls": 0.5,
        "nulls_relevant": 0.08, "mean": mean, "all_mean": 1.0,
    }  # fmt: skip
    settings = {"tensor": "4.m", "definition": "map", "share": 0.1}
    (claim,) = figure4.present([record("figure4", settings, values)]).claims
    assert verdict in claim.verdict
