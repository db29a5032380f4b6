"""Figures 5 and 6: bits against accuracy and size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from services.study.experiments.quantization import BITS, FLOAT, figure5, figure6
from services.study.record import RANDOM
from tests.codec import reference_rle
from tests.services.study.conftest import StudyFactory, record


def test_sizes_are_those_of_the_papers_code(make_study: StudyFactory) -> None:
    study = make_study()
    figure6.measure(study)
    (subject,) = study.subjects
    samples = list(study.samples(subject, study.stills(subject)))
    for one in study.book.of("figure6"):
        bits = one.settings.get("bits")
        if bits not in (2, 3, 8):
            continue
        payloads = [
            sum(len(_payload(tensor, bits)) for tensor in sample.tensors.values()) for sample in samples
        ]
        header = one.values["bytes"] - np.mean(payloads)
        assert 50 < header < 120, "two tensors' names, shapes and lengths"
        assert one.values["split_tensor_bytes"] < one.values["bytes"]
    raw = next(one for one in study.book.of("figure6") if one.settings.get("bits") == FLOAT)
    assert raw.values["bytes"] == sum(tensor.nbytes for tensor in samples[0].tensors.values())


def _payload(tensor: NDArray[np.float32], bits: int) -> bytes:
    coded = reference_rle.quantize(tensor.flatten().tolist(), bits)
    return reference_rle.section(coded, coded.levels, bits)


def test_measures_once(make_study: StudyFactory) -> None:
    study = make_study()
    for experiment in (figure5, figure6):
        experiment.measure(study)
    before = study.book.path.read_text()
    again = make_study()
    for experiment in (figure5, figure6):
        experiment.measure(again)
    assert again.book.path.read_text() == before
    assert before.count("\n") == 2 * (len(BITS) + 1) + 1


def test_random_weights_have_sizes_but_no_accuracy(make_study: StudyFactory) -> None:
    study = make_study(weights=RANDOM)
    figure5.measure(study)
    figure6.measure(study)
    assert not study.book.of("figure5")
    (refusal,) = study.refusals
    assert "random weights" in refusal
    assert "--model tiny=FILE" in refusal
    section = figure6.present(study.book.of("figure6"))
    assert all("random weights" in row[0] for row in section.tables[0].rows)
    assert "random weights" in {text.get_text() for text in section.drawings[0].figure.texts}


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


@pytest.mark.parametrize(("kb", "verdict"), [(150, "This agrees"), (300, "This does not agree")])
def test_the_verdict_on_size_follows_the_bottleneck(kb: int, verdict: str) -> None:
    records = [
        record("figure6", {"size": "jpeg"}, {"bytes": 100 * 1024}),
        record("figure6", {"bits": FLOAT}, {"bytes": 3000 * 1024, "split_tensor_bytes": 1}),
        record("figure6", {"bits": 3}, {"bytes": kb * 1024, "split_tensor_bytes": 1}),
    ]
    (claim,) = figure6.present(records).claims
    assert claim.verdict.startswith(verdict)
    assert f"{kb / 100:.2f} times JPEG" in claim.ours
