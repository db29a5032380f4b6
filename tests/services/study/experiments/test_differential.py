"""Differential coding of levels in space, against zlib and sums done by hand."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from services.study.experiments.differential import differential, level_difference
from tests.services.study.records import StudyFactory, record

LEVELS = np.random.default_rng(5).integers(0, 8, (3, 4, 5)).astype(np.uint8)


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
