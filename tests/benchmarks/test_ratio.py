"""A change of a codec is measured from the files that it left before and after."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest

from services.evaluation.evaluate import as_json
from tests.benchmarks.ratio import DifferentFrames, main, ratios
from tests.services.evaluation.records import UNSPLIT, coded

FRAMES = 12
SETTINGS = {"weights": "abc", "split": "4.m", "size": "640", "noise": None, "repeat": None}


def written(tmp_path, name, factor, frames=FRAMES, **settings):
    records = [UNSPLIT]
    for quality in (3, 5, 7):
        sizes = tuple(round(1000 * factor * quality * (1 + number)) for number in range(frames))
        records.append(
            replace(
                coded(f"feature:quality={quality}", sum(sizes) / frames / 1e3, 0.9),
                frames=frames,
                frame_bytes=sizes,
                frame_is_key=(True,) * frames,
                frame_distortion=tuple(10 / quality * (1 + number) for number in range(frames)),
                frame_sequence=tuple(range(frames)),
            )
        )
    path = tmp_path / f"{name}.json"
    path.write_text(as_json({**SETTINGS, **settings}, records, {}))
    return path, {**SETTINGS, **settings, "records": [asdict(record) for record in records]}


def test_a_codec_that_takes_less_is_seen(tmp_path, monkeypatch, capsys):
    (before, _), (after, _) = written(tmp_path, "before", 1), written(tmp_path, "after", 0.8)
    monkeypatch.setattr("sys.argv", ["ratio", str(before), str(after)])
    main()
    assert capsys.readouterr().out.splitlines() == [
        "street: feature .80 (.80 to .80)",
        "geometric mean: feature 0.800, worst 0.800",
    ]


@pytest.mark.parametrize("settings", [{"noise": 2.0}, {"frames": FRAMES + 1}, {"weights": "abd"}])
def test_other_frames_are_refused(tmp_path, settings):
    (_, before), (_, after) = written(tmp_path, "before", 1), written(tmp_path, "after", 1, **settings)
    with pytest.raises(DifferentFrames, match="measure the same anew"):
        list(ratios(before, after))
