"""Figure 1: coefficients against sums done by hand."""

from __future__ import annotations

import numpy as np
import pytest

from services.study.distribution import WHOLE
from services.study.experiments.figure1 import figure1
from services.study.record import RANDOM
from tests.services.study.records import StudyFactory, distribution_records


def test_a_figure_is_that_of_the_networks_tensors(make_study: StudyFactory) -> None:
    study = make_study()
    figure1.measure(study)
    (subject,) = study.subjects
    samples = list(study.samples(subject, study.stills(subject)))
    summary = next(record for record in study.book.of("figure1") if record.settings.get("summary"))
    tensors = [sample.tensors["4.m"] for sample in samples]
    whole = summary.values[f"4.m {WHOLE}"]
    assert whole["negatives"] == pytest.approx(np.mean([np.mean(tensor < 0) for tensor in tensors]), rel=1e-5)
    assert whole["minimum"] == pytest.approx(min(float(tensor.min()) for tensor in tensors), rel=1e-5)
    assert whole["pictures"] == len(samples)
    before = study.book.path.read_text()
    figure1.measure(make_study())
    assert study.book.path.read_text() == before


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
    (claim,) = figure1.present(distribution_records("figure1", network, whole=whole)).claims
    assert verdict in claim.verdict


def test_random_weights_are_stamped() -> None:
    section = figure1.present(distribution_records("figure1", "resnet50", weights=RANDOM))
    assert "random weights" in section.claims[0].ours
    assert "random weights" in {text.get_text() for text in section.drawings[0].figure.axes[0].texts}
