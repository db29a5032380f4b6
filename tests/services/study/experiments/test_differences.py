"""Differential coding of levels in space and time, against scipy, zlib and sums done by hand."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest
from scipy.stats import entropy as scipy_entropy

from codec.packet import Stamp
from codec.rle.codec import Rle
from services.study.experiments.differences import (
    conditional_entropy,
    differential,
    entropy,
    level_difference,
    temporal,
    zero_run_bytes,
)
from tests.codec import reference_rle
from tests.services.study.conftest import StudyFactory, record

LEVELS = np.random.default_rng(5).integers(0, 8, (3, 4, 5)).astype(np.uint8)


def test_entropy_is_scipys() -> None:
    counts = np.bincount(LEVELS.reshape(-1), minlength=8)
    assert entropy(LEVELS, 3) == pytest.approx(scipy_entropy(counts, base=2))


def test_conditional_entropy_is_the_chain_rules() -> None:
    rng = np.random.default_rng(1)
    before = rng.integers(0, 8, 5000).astype(np.uint8)
    levels = (before + rng.integers(0, 2, 5000).astype(np.uint8)) & np.uint8(7)
    joint, _, _ = np.histogram2d(before, levels, bins=(range(9), range(9)))
    expected = sum(joint[row].sum() / 5000 * scipy_entropy(joint[row], base=2) for row in range(8))
    assert conditional_entropy(levels, before, 3) == pytest.approx(expected)
    assert conditional_entropy(before, before, 3) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("along", "step"), [("channel", (1, 0, 0)), ("column", (0, 1, 0)), ("row", (0, 0, 1))]
)
def test_level_differences_are_modulo_and_can_be_undone(along: str, step: tuple[int, int, int]) -> None:
    found = level_difference(LEVELS, along, 3)
    assert found.shape == LEVELS.shape
    axis = step.index(1)
    back = np.cumsum(found.astype(np.int64), axis=axis) % 8
    np.testing.assert_array_equal(back, LEVELS)
    a, b = (1, 2, 3), tuple(np.subtract((1, 2, 3), step))
    assert found[a] == (int(LEVELS[a]) - int(LEVELS[b])) % 8


def test_the_papers_code_has_the_length_of_its_codewords() -> None:
    levels = np.where(np.random.default_rng(2).random(500) < 0.8, 0, 5).astype(np.uint8)
    words = reference_rle.codewords(levels.tolist(), 3)
    assert zero_run_bytes(levels, 3) == -(-len(words) * 4 // 8)


def test_space_is_measured_on_the_networks_levels(make_study: StudyFactory) -> None:
    study = make_study(quick=True)
    differential.measure(study)
    (subject,) = study.subjects
    samples = list(study.samples(subject, study.stills(subject)))
    one = next(o for o in study.book.of("differential") if o.settings == {"bits": 3, "of": "levels"})
    sizes = []
    for sample in samples:
        flat = b""
        for tensor in sample.tensors.values():
            low, high = float(tensor.min()), float(tensor.max())
            flat += (
                np.floor((tensor.astype(np.float64) - low) * 7 / (high - low) + 0.5)
                .astype(np.uint8)
                .tobytes()
            )
        sizes.append(len(zlib.compress(flat)))
    assert one.values["zlib"] == pytest.approx(np.mean(sizes), abs=1e-3)
    before = study.book.path.read_text()
    differential.measure(make_study(quick=True))
    assert study.book.path.read_text() == before


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


@pytest.mark.parametrize(("row", "verdict"), [(95.0, "This agrees"), (60.0, "This does not agree")])
def test_the_verdict_on_space_follows_the_sizes(row: float, verdict: str) -> None:
    def sizes(value: float) -> dict[str, float]:
        return {"entropy": value, "rle": value, "zlib": value}

    records = [
        record("differential", {"bits": 3, "of": "levels"}, sizes(100.0)),
        record("differential", {"bits": 3, "of": "row"}, sizes(row)),
    ]
    (claim,) = differential.present(records).claims
    assert claim.verdict.startswith(verdict)


@pytest.mark.parametrize(("conditional", "verdict"), [(1.9, "This agrees"), (0.5, "This does not agree")])
def test_the_verdict_on_time_follows_the_entropy(conditional: float, verdict: str) -> None:
    values: dict[str, Any] = {
        "unchanged": 0.5, "entropy": 2.0, "difference_entropy": 1.0, "conditional_entropy": conditional,
        "still_bytes": 100.0, "temporal_bytes": 50.0,
    }  # fmt: skip
    (claim,) = temporal.present([record("temporal", {"bits": 4}, values, data="clip.mp4 1 f 60")]).claims
    assert claim.verdict.startswith(verdict)
