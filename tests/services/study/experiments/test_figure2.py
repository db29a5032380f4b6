"""Figure 2: differences in space against sums done by hand."""

from __future__ import annotations

import numpy as np
import pytest

from services.study.experiments.figure2 import figure2
from tests.services.study.records import StudyFactory, distribution_records


def test_a_figure_is_that_of_differences_of_the_networks_tensors(make_study: StudyFactory) -> None:
    study = make_study()
    figure2.measure(study)
    (subject,) = study.subjects
    samples = study.samples(subject, study.stills(subject))
    summary = next(record for record in study.book.of("figure2") if record.settings.get("summary")).values
    ranges = [float(np.ptp(np.diff(sample.tensors["4.m"], axis=2))) for sample in samples]
    assert summary["4.m row"]["range"] == pytest.approx(np.mean(ranges), rel=1e-5)
    before = study.book.path.read_text()
    figure2.measure(make_study())
    assert study.book.path.read_text() == before


@pytest.mark.parametrize(("bits", "verdict"), [(1.2, "this agrees"), (0.5, "this does not agree")])
def test_the_verdict_on_space_follows_the_bits(bits: float, verdict: str) -> None:
    parts = {part: {"entropy": bits, "range": 0.85} for part in ("row", "column", "channel")}
    (claim,) = figure2.present(distribution_records("figure2", "yolov5n", parts=parts)).claims
    assert verdict in claim.verdict
    assert "row 0.50" in claim.ours
