"""What a codec takes of its bytes before a change, at equal distortion, from two files of `splitcast evaluate --json`.

    python -m tests.benchmarks.ratio before.json after.json

Both have to be of the same sources, frames and network. Each source has a line for each codec, with the 90 % interval
of the ratio; last come the geometric mean over the sources and the worst of them.
"""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from services.evaluation.codec_sets import parse_codecs
from services.evaluation.intervals import Ratio, rates_against
from services.evaluation.scores import Measured, Scores
from services.evaluation.summary import interval

SAME = ("weights", "split", "size", "noise", "repeat")


class DifferentFrames(ValueError):
    """Two files were not made on the same frames."""


def ratios(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[tuple[str, str, Ratio]]:
    """Source, codec, and the ratio of bytes in the mean over the distortions that both reach."""
    for key in SAME:
        if before[key] != after[key]:
            raise DifferentFrames(
                f"{key} is {before[key]} before and {after[key]} after; measure the same anew"
            )
    for (source, codec), records in _curves(after).items():
        others = _curves(before).get((source, codec), [])
        if not others:
            continue
        if {_frames(record) for record in (*records, *others)} != {_frames(records[0])}:
            raise DifferentFrames(f"{source} has other frames before and after; measure the same anew")
        for comparison in rates_against("before", _measured(others), _measured(records)):
            if comparison.mean and comparison.frames == "all":
                yield source, codec, comparison.mean


def _curves(written: Mapping[str, Any]) -> dict[tuple[str, str], list[Mapping[str, Any]]]:
    curves: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for record in written["records"]:
        if record["codec"] != "none":
            curves.setdefault((record["data"] or record["clip"], record["codec"]), []).append(record)
    return curves


def _frames(record: Mapping[str, Any]) -> tuple[int, ...]:
    return record["anchors"], *record["frame_sequence"]


def _measured(records: Sequence[Mapping[str, Any]]) -> list[Measured]:
    measured = []
    for record in records:
        scores = Scores(
            frames=record["frames"],
            distortions=record["frame_distortion"],
            sequences=record["frame_sequence"],
            frame_bytes=record["frame_bytes"],
            frame_is_key=record["frame_is_key"],
        )
        codec = parse_codecs([record["codec"]])[0]  # its name counts alone
        measured.append(Measured(codec, scores))
    return measured


def main() -> None:
    parser = ArgumentParser(prog="python -m tests.benchmarks.ratio", description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    options = parser.parse_args()
    files = [json.loads(path.read_text()) for path in (options.before, options.after)]
    by_codec: dict[str, list[float]] = {}
    for source, codec, ratio in ratios(*files):
        print(f"{source}: {codec} {interval(ratio)}")
        by_codec.setdefault(codec, []).append(ratio.ratio)
    for codec, found in by_codec.items():
        print(f"geometric mean: {codec} {np.exp(np.mean(np.log(found))):.3f}, worst {max(found):.3f}")


if __name__ == "__main__":
    main()
