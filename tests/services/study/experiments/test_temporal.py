"""What levels have in common in time, against scipy and real packets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import entropy as scipy_entropy

from codec.packet import Stamp
from codec.rle.codec import Rle
from services.study.experiments.temporal import conditional_entropy, temporal
from tests.services.study.records import StudyFactory, record


def test_conditional_entropy_is_the_chain_rules() -> None:
    rng = np.random.default_rng(1)
    before = rng.integers(0, 8, 5000).astype(np.uint8)
    levels = (before + rng.integers(0, 2, 5000).astype(np.uint8)) & np.uint8(7)
    joint, _, _ = np.histogram2d(before, levels, bins=(range(9), range(9)))
    expected = sum(joint[row].sum() / 5000 * scipy_entropy(joint[row], base=2) for row in range(8))
    assert conditional_entropy(levels, before, 3) == pytest.approx(expected)
    assert conditional_entropy(before, before, 3) == pytest.approx(0, abs=1e-9)


def test_time_is_measured_with_real_packets(make_study: StudyFactory) -> None:
    study = make_study(quick=True)
    temporal.measure(study)
    (subject,) = study.subjects
    samples = list(study.samples(subject, study.clip()))
    one = next(o for o in study.book.of("temporal") if o.settings == {"bits": 3})
    encoder = Rle(3, temporal=True).encoder(samples[0].layout)
    sizes = [len(encoder.encode(s.tensors, Stamp(n, 0, 1, 1)).data) for n, s in enumerate(samples)]
    assert one.values["temporal_bytes"] == pytest.approx(np.mean(sizes[1:]), rel=1e-5)
    assert one.values["still_bytes"] > one.values["temporal_bytes"]
    assert 0 < one.values["unchanged"] < 1
    feature = next(o for o in study.book.of("temporal") if "codec" in o.settings)
    assert feature.values["calibrated"] is False, "nobody made a profile for random weights"
    section = temporal.present(study.book.of("temporal"))
    assert any("uncalibrated" in row[1] for row in section.tables[0].rows)
    before = study.book.path.read_text()
    temporal.measure(make_study(quick=True))
    assert study.book.path.read_text() == before


@pytest.mark.parametrize(("conditional", "verdict"), [(1.9, "This agrees"), (0.5, "This does not agree")])
def test_the_verdict_on_time_follows_the_entropy(conditional: float, verdict: str) -> None:
    values: dict[str, Any] = {
        "unchanged": 0.5, "entropy": 2.0, "difference_entropy": 1.0, "conditional_entropy": conditional,
        "still_bytes": 100.0, "temporal_bytes": 50.0,
    }  # fmt: skip
    (claim,) = temporal.present([record("temporal", {"bits": 4}, values, data="clip.mp4 1 f 60")]).claims
    assert claim.verdict.startswith(verdict)
