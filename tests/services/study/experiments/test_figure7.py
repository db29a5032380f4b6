"""Figure 7: sizes against the compressors themselves."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import cv2
import lz4.frame
import numpy as np
import pytest
import zstandard

from codec.layout import raw_bytes
from services.study.dataset import folder_pictures
from services.study.detection import Detection
from services.study.experiments.figure7 import figure7
from services.study.levels import FLOAT
from stream.torch_network.model import Model
from tests.services.study.records import StudyFactory, record


def _levels(tensor: np.ndarray, bits: int) -> bytes:
    low, high = float(tensor.min()), float(tensor.max())
    scale = (2**bits - 1) / (high - low)
    return np.floor((tensor.astype(np.float64) - low) * scale + 0.5).astype(np.uint8).tobytes()


def test_sizes_are_those_of_the_libraries(make_study: StudyFactory) -> None:
    study = make_study(quick=True)
    figure7.measure(study)
    (subject,) = study.subjects
    samples = list(study.samples(subject, study.stills(subject)))
    compress = {"zlib": zlib.compress, "zstd": zstandard.ZstdCompressor().compress, "lz4": lz4.frame.compress}
    for one in study.book.of("figure7"):
        coder, bits = one.settings["coder"], one.settings["bits"]
        assert one.times_ms.keys() == {"encode", "decode"}
        if coder == "rle":
            continue
        plain = [
            b"".join(t.tobytes() if bits == FLOAT else _levels(t, bits) for t in sample.tensors.values())
            for sample in samples
        ]
        ranges = 0 if bits == FLOAT else 16
        assert one.values["bytes"] == pytest.approx(
            np.mean([len(compress[coder](p)) + ranges for p in plain]), abs=0.1
        )
    before = study.book.path.read_text()
    figure7.measure(make_study(quick=True))
    assert study.book.path.read_text() == before


def test_shares_are_of_the_mean_size_where_pictures_differ_in_shape(
    make_study: StudyFactory, model: Model, tmp_path: Path
) -> None:
    for number, shape in enumerate(((96, 96, 3), (96, 96, 3), (32, 96, 3))):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full(shape, 9, np.uint8))
    subject = Detection("tiny", model, "hash", "4.m", 96)
    study = make_study(quick=True, images=folder_pictures(tmp_path), subjects=[subject])
    figure7.measure(study)
    expected = np.mean([raw_bytes(sample.layout) for sample in study.samples(subject, study.stills(subject))])
    for one in study.book.of("figure7"):
        assert one.values["raw_bytes"] == pytest.approx(expected, abs=0.1)


def _records(zlib_share: float, ratio: float, time: float) -> list[Any]:
    def one(coder: str, bits: int, size: float, encode: float) -> Any:
        values = {"bytes": size, "raw_bytes": 1000, "pictures": 4}
        return record(
            "figure7", {"coder": coder, "bits": bits}, values, times_ms={"encode": encode, "decode": 1.0}
        )

    found = [one("zlib", FLOAT, 1000 * zlib_share, 9.0)]
    for bits in range(2, 9):
        found.append(one("rle", bits, 100.0, 2.0))
        found.append(one("zlib", bits, 100 * (ratio if bits >= 4 else 1 / ratio), 2 * time))
    return found


def test_verdicts_follow_the_papers_own_numbers() -> None:
    share, size, time = figure7.present(_records(0.6, 1.2, 2.5)).claims
    assert "agrees (within" in share.verdict
    assert size.verdict == "This agrees."
    assert time.verdict == "This agrees (the median)."
    share, size, time = figure7.present(_records(0.9, 0.8, 6.0)).claims
    assert "does not agree" in share.verdict
    assert "does not agree: zlib is larger at 2, 3 bits" in size.verdict
    assert "more" in time.verdict


def test_the_table_gives_ratios_to_the_papers_code() -> None:
    rows = figure7.present(_records(0.6, 1.2, 2.5)).tables[0].rows
    assert ["tiny, layer 4.m", "8", "zlib", "0.1", "12.0%", "2.50", "5.00", "1.00"] in rows
