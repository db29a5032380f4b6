"""Figure 5: bits against accuracy."""

from __future__ import annotations

from typing import Any

import pytest

from services.study.experiments.figure5 import figure5
from services.study.levels import BITS
from services.study.record import RANDOM
from tests.services.study.records import StudyFactory, record


def test_measures_once(make_study: StudyFactory) -> None:
    study = make_study()
    figure5.measure(study)
    before = study.book.path.read_text()
    figure5.measure(make_study())
    assert study.book.path.read_text() == before
    assert before.count("\n") == len(BITS) + 1


def test_random_weights_have_no_accuracy(make_study: StudyFactory) -> None:
    study = make_study(weights=RANDOM)
    figure5.measure(study)
    assert not study.book.of("figure5")
    (refusal,) = study.refusals
    assert "random weights" in refusal
    assert "--model tiny=FILE" in refusal


def _accuracies(**by_bits: float) -> list[Any]:
    return [
        record("figure5", {"bits": int(bits[1:])}, {"map": score, "map50": score + 0.1})
        for bits, score in by_bits.items()
    ]


@pytest.mark.parametrize(
    ("four", "three", "verdict"),
    [
        (0.399, 0.39, "At 4 bits this agrees (at most 1% lost), at 3 bits it agrees (at most 5%)."),
        (
            0.39,
            0.3,
            "At 4 bits this does not agree (at most 1% lost), at 3 bits it does not agree (at most 5%).",
        ),
    ],
)
def test_the_verdict_on_accuracy_follows_the_scores(four: float, three: float, verdict: str) -> None:
    (claim,) = figure5.present(_accuracies(b32=0.4, b4=four, b3=three)).claims
    assert claim.verdict == verdict
    assert "0.400 unquantized" in claim.ours


def test_accuracies_stand_in_the_table() -> None:
    section = figure5.present(_accuracies(b32=0.4, b3=0.35, b2=0.1))
    assert section.tables[0].rows == [
        ["tiny, layer 4.m", "none", "0.500", "0.400"],
        ["tiny, layer 4.m", "3", "0.450", "0.350"],
        ["tiny, layer 4.m", "2", "0.200", "0.100"],
    ]
    assert not section.claims, "nothing is said of 4 bits that were not measured"
