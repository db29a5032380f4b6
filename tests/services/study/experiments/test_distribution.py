"""Figures 1 to 3 against numpy's histograms and sums done by hand."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from scipy.stats import entropy as scipy_entropy

from services.study.experiments.distribution import (
    PROBABILITIES,
    WHOLE,
    describe,
    difference,
    entropy,
    figure1,
    figure2,
    figure3,
)
from services.study.record import RANDOM
from tests.services.study.conftest import StudyFactory, record

TENSOR = np.random.default_rng(3).normal(size=(3, 4, 5)).astype(np.float32)


def test_differences_are_taken_along_rows_columns_and_channels() -> None:
    for along, (c, h, w) in {"channel": (1, 0, 0), "column": (0, 1, 0), "row": (0, 0, 1)}.items():
        found = difference(TENSOR, along)
        assert found.shape == (3 - c, 4 - h, 5 - w)
        assert found[1, 2, 3] == TENSOR[1 + c, 2 + h, 3 + w] - TENSOR[1, 2, 3]


def test_entropy_is_that_of_the_histogram() -> None:
    values = np.random.default_rng(0).normal(size=10_000).astype(np.float32)
    edges = np.arange(-10.25, 10.5, 0.5)
    counts, _ = np.histogram(values, edges)
    assert entropy(values, 0.5) == pytest.approx(scipy_entropy(counts, base=2))
    assert entropy(np.zeros(5, np.float32), 0.5) == 0
    assert entropy(values, 0.0) == 0


def test_a_tensor_is_described_by_its_own_numbers() -> None:
    values = np.array([0, 0, -1, 3, 4, -2, 0, 8], np.float32)
    found = describe(values, 1.0)
    assert (found["minimum"], found["maximum"]) == (-2, 8)
    assert found["zeros"] == 3 / 8
    assert found["negatives"] == 2 / 8
    assert found["deviation"] == pytest.approx(np.std(values), rel=1e-5)
    for probability, quantile in zip(PROBABILITIES, found["quantiles"], strict=True):
        assert quantile == pytest.approx(np.quantile(values, probability), abs=1e-4)


def test_measured_figures_are_those_of_the_networks_tensors(make_study: StudyFactory) -> None:
    study = make_study()
    figure1.measure(study)
    figure2.measure(study)
    (subject,) = study.subjects
    samples = list(study.samples(subject, study.stills(subject)))
    summary = next(one for one in study.book.of("figure1") if one.settings.get("summary"))
    tensors = [sample.tensors["4.m"] for sample in samples]
    found = summary.values[f"4.m {WHOLE}"]
    assert found["negatives"] == pytest.approx(np.mean([np.mean(one < 0) for one in tensors]), rel=1e-5)
    assert found["minimum"] == pytest.approx(min(float(one.min()) for one in tensors), rel=1e-5)
    assert found["pictures"] == len(samples)
    spaces = next(one for one in study.book.of("figure2") if one.settings.get("summary")).values
    ranges = [float(np.ptp(one[:, :, 1:] - one[:, :, :-1])) for one in tensors]
    assert spaces["4.m row"]["range"] == pytest.approx(np.mean(ranges), rel=1e-5)
    before = study.book.path.read_text()
    figure1.measure(make_study())
    figure2.measure(make_study())
    assert study.book.path.read_text() == before


def test_differences_in_time_are_of_consecutive_frames(make_study: StudyFactory) -> None:
    study = make_study()
    figure3.measure(study)
    (subject,) = study.subjects
    samples = [sample.tensors["4.m"] for sample in study.samples(subject, study.clip())]
    values = next(one for one in study.book.of("figure3") if one.settings.get("summary")).values
    deviations = [float(np.std(now - then)) for then, now in itertools.pairwise(samples)]
    assert values["4.m time"]["deviation"] == pytest.approx(np.mean(deviations), rel=1e-4)
    assert values["4.m time"]["pictures"] == len(samples) - 1
    assert figure3.present(study.book.of("figure3")).claims


def test_without_a_clip_it_is_said_what_is_needed(make_study: StudyFactory) -> None:
    study = make_study(clips=[])
    figure3.measure(study)
    assert "--clip" in study.refusals[0]


def _summary(experiment: str, network: str, **changes: Any) -> list[Any]:
    whole = {
        "deviation": 1.0, "zeros": 0.45, "negatives": 0.3, "entropy": 2.0, "minimum": -0.2, "maximum": 1.5,
        "range": 1.7, "pictures": 4,
    }  # fmt: skip
    curve = {**whole, "quantiles": [float(one) for one in PROBABILITIES]}
    found = {f"4.m {WHOLE}": {**whole, **changes.get("whole", {})}}
    found |= {f"4.m {part}": {**whole, **values} for part, values in changes.get("parts", {}).items()}
    weights = changes.get("weights", "hash")
    return [
        record(
            experiment,
            {"picture": 0, "tensor": "4.m", "part": WHOLE},
            curve,
            network=network,
            weights=weights,
        ),
        record(experiment, {"summary": True}, found, network=network, weights=weights),
    ]


@pytest.mark.parametrize(
    ("network", "whole", "verdict"),
    [
        ("resnet50", {}, "zeros agrees; the range agrees"),
        (
            "resnet50",
            {"zeros": 0.3, "maximum": 3.0},
            "zeros does not agree; the range does not agree (below 2)",
        ),
        ("vgg16", {"maximum": 19.0}, "the range agrees"),
        ("yolov5n", {}, "This agrees"),
        ("yolov5n", {"negatives": 0.05}, "This does not agree"),
        ("yolov5n", {"minimum": -1.5}, "This does not agree"),
    ],
)
def test_the_verdict_on_zeros_follows_the_shares(network: str, whole: dict[str, float], verdict: str) -> None:
    (claim,) = figure1.present(_summary("figure1", network, whole=whole)).claims
    assert verdict in claim.verdict


def test_random_weights_are_stamped() -> None:
    section = figure1.present(_summary("figure1", "resnet50", weights=RANDOM))
    assert "random weights" in section.claims[0].ours
    assert "random weights" in {text.get_text() for text in section.drawings[0].figure.axes[0].texts}


@pytest.mark.parametrize(("bits", "verdict"), [(1.2, "this agrees"), (0.5, "this does not agree")])
def test_the_verdict_on_space_follows_the_bits(bits: float, verdict: str) -> None:
    parts = {part: {"entropy": bits, "range": 0.85} for part in ("row", "column", "channel")}
    (claim,) = figure2.present(_summary("figure2", "yolov5n", parts=parts)).claims
    assert verdict in claim.verdict
    assert "row 0.50" in claim.ours


@pytest.mark.parametrize(
    ("extent", "verdict"), [(0.85, "is 2.0, which agrees"), (0.17, "10.0, which does not agree")]
)
def test_the_verdict_on_time_follows_the_range(extent: float, verdict: str) -> None:
    parts = {"time": {"range": extent, "entropy": 0.2}}
    (claim,) = figure3.present(_summary("figure3", "yolov5n", parts=parts)).claims
    assert verdict in claim.verdict
    assert "90% of the bits" in claim.verdict
