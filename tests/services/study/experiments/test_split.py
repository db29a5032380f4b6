"""Every split point: sizes and scores against one cut at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from codec.packet import Stamp
from codec.rle.codec import Rle
from services.study.experiments.split import GOOD, split
from services.study.record import RANDOM
from stream.network.cut import split_points
from stream.torch_network.split import TorchHead
from tests.services.study.records import StudyFactory, record


def test_sizes_are_those_of_each_cut_by_itself(make_study: StudyFactory) -> None:
    study = make_study(weights=RANDOM)
    split.measure(study)
    (subject,) = study.subjects
    records = {one.settings["point"]: one for one in study.book.of("split")}
    assert list(records) == list(split_points(subject.graph))
    samples = list(study.samples(subject, study.stills(subject)))
    for point in ("0", "4.m", "9", "20"):
        head = TorchHead(subject, point, (64, 96))
        sizes = []
        for sample in samples:
            tensors = {name: one[0].numpy() for name, one in head.run(sample.picture).items()}
            sizes.append(len(Rle(4).encoder(head.layout).encode(tensors, Stamp(0, 0, 1, 1)).data))
        assert records[point].values["bytes"] == pytest.approx(np.mean(sizes), abs=0.1)
        assert records[point].values["raw_bytes"] == sum(spec.raw_bytes for spec in head.layout)
        assert records[point].values["scores"] == {}
    shares = [one.values["flops_share"] for one in records.values()]
    assert shares == sorted(shares)
    heads = [one.times_ms["head"] for one in records.values()]
    assert heads == sorted(heads)
    assert split.present(list(records.values())).tables[1].rows


def test_scores_at_the_studied_point_are_those_of_the_codec(make_study: StudyFactory) -> None:
    from services.study.accuracy import accuracies, through

    study = make_study(quick=True)
    split.measure(study)
    one = next(one for one in study.book.of("split") if one.settings["point"] == "4.m")
    (subject,) = study.subjects
    samples = study.samples(subject, study.stills(subject), one.values["pictures"])
    assert one.values["scores"] == accuracies(subject, samples, {0: through(Rle(4))})[0].scores
    before = study.book.path.read_text()
    split.measure(make_study(quick=True))
    assert study.book.path.read_text() == before


def _point(name: str, head: float, tail: float, kb: float, kept: float) -> Any:
    values = {
        "raw_bytes": 8000 * kb, "bytes": 1000 * kb, "flops_share": head / (head + tail), "pictures": 1,
        "scores": {"map": 0.4 * kept}, "whole": {"map": 0.4},
    }  # fmt: skip
    return record("split", {"point": name, "bits": 4}, values, times_ms={"head": head, "tail": tail})


def test_the_least_delay_is_found_and_told() -> None:
    records = [
        _point("early", 5, 95, 1000, 1),
        _point("middle", 30, 70, 100, 1),
        _point("lossy", 60, 40, 1, GOOD - 0.01),
        _point("late", 90, 10, 10, 1),
    ]
    section = split.present(records)
    found = {row[1]: row[2:] for row in section.tables[0].rows}
    # 10 times as fast a detector: 1 Mbit/s 90+80+1, 10 Mbit/s 90+8+1 (middle 30+80+7), 100 Mbit/s 30+8+7
    assert found["1"] == ["late", "171.0", "104.8"]
    assert found["10"] == ["late", "99.0", "100.5"]
    assert found["100"] == ["middle", "45.0", "100.0"]
    assert (
        "agrees in part: of 3 links the best point lies in the last quarter for 2"
        in section.claims[0].verdict
    )
