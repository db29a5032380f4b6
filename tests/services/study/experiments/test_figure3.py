"""Figure 3: differences in time against sums done by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from services.study.experiments.figure3 import figure3
from tests.services.study.records import StudyFactory, distribution_records


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


@pytest.mark.parametrize(
    ("extent", "verdict"), [(0.85, "is 2.0, which agrees"), (0.17, "10.0, which does not agree")]
)
def test_the_verdict_on_time_follows_the_range(extent: float, verdict: str) -> None:
    parts = {"time": {"range": extent, "entropy": 0.2}}
    (claim,) = figure3.present(distribution_records("figure3", "yolov5n", parts=parts)).claims
    assert verdict in claim.verdict
    assert "90% of the bits" in claim.verdict
