"""Figure 6: bits against size."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from services.study.experiments.figure6 import figure6
from services.study.levels import BITS, FLOAT
from services.study.record import RANDOM
from tests.codec import reference_rle
from tests.services.study.records import StudyFactory, record


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
    figure6.measure(study)
    before = study.book.path.read_text()
    figure6.measure(make_study())
    assert study.book.path.read_text() == before
    assert before.count("\n") == len(BITS) + 2


def test_random_weights_have_sizes(make_study: StudyFactory) -> None:
    study = make_study(weights=RANDOM)
    figure6.measure(study)
    section = figure6.present(study.book.of("figure6"))
    assert all("random weights" in row[0] for row in section.tables[0].rows)
    assert "random weights" in {text.get_text() for text in section.drawings[0].figure.texts}


@pytest.mark.parametrize(("kib", "verdict"), [(150, "This agrees"), (300, "This does not agree")])
def test_the_verdict_on_size_follows_the_bottleneck(kib: int, verdict: str) -> None:
    records = [
        record("figure6", {"size": "jpeg"}, {"bytes": 100 * 1024}),
        record("figure6", {"bits": FLOAT}, {"bytes": 3000 * 1024, "split_tensor_bytes": 1}),
        record("figure6", {"bits": 3}, {"bytes": kib * 1024, "split_tensor_bytes": 1}),
    ]
    (claim,) = figure6.present(records).claims
    assert claim.verdict.startswith(verdict)
    assert f"{kib / 100:.2f} times JPEG" in claim.ours
