"""The ways to share a network's work between camera and detector, made of estimates or of an evaluation's records."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from services.evaluation.delay import LinkModel, Placement, ranked
from services.evaluation.point_costs import PointCost
from services.evaluation.scores import EvaluationRecord
from stream.network.names import DEFAULT_SPLIT

AGREEMENT = 0.95  # AP50-95 with the unsplit network: placements are compared where they are about as good
DETECTION_BYTES = 600
"""Of the message that tells what was found, about: all that travels if all runs at the camera."""
TRIED = 5  # split points, beside the default one, that the codecs are tried at
CODED_SHARE = 0.15
"""Of the float32 tensors that `rle:bits=4` takes, about, for points where nothing was tried."""


def estimated_placements(costs: Iterable[PointCost]) -> list[Placement]:
    """A placement for every point, with a guess of what a codec makes of its tensors."""
    return [
        Placement(
            f"split at {cost.point}",
            "split",
            cost.head_ms,
            cost.tail_ms,
            CODED_SHARE * cost.raw_bytes,
            point=cost.point,
            estimated=True,
        )
        for cost in costs
    ]


def points_to_try(estimated: Sequence[Placement], link: LinkModel, required: Sequence[str]) -> list[str]:
    """The points at which codecs are tried: those required, or the default and the best by their estimates."""
    if required:
        return list(dict.fromkeys(required))
    best = [placement.point for placement in ranked(estimated, link)[:TRIED]]
    points = [placement.point for placement in estimated]
    return list(dict.fromkeys([*(point for point in (DEFAULT_SPLIT,) if point in points), *best]))


def split_placements(records: Sequence[EvaluationRecord], point: str) -> list[Placement]:
    """Placements from the records of codecs of tensors at one point."""
    return [
        Placement(
            f"split at {point}, {_short_spec(record)}",
            "split",
            (record.head_ms or 0) + (record.encode_ms or 0),
            (record.decode_ms or 0) + (record.tail_ms or 0),
            1000 * (record.kb_per_frame or 0),
            record.agreement,
            point,
        )
        for record in records
        if record.codec != "none"
    ]


def pixel_placements(records: Sequence[EvaluationRecord]) -> list[Placement]:
    """For each codec of pixels its cheapest setting that agrees well enough, or the best one if none does."""
    placements = []
    unsplit_ms = records[0].unsplit_ms or 0
    for codec in dict.fromkeys(record.codec for record in records if record.codec != "none"):
        of_codec = [record for record in records if record.codec == codec]
        good = [record for record in of_codec if (record.agreement or 0) >= AGREEMENT]
        best = (
            min(good, key=lambda record: record.kb_per_frame or 0)
            if good
            else max(of_codec, key=lambda record: record.agreement or 0)
        )
        placements.append(
            Placement(
                f"send {'H.264' if codec == 'x264' else codec.upper()} ({_short_spec(best)})",
                "pixels",
                best.encode_ms or 0,
                (best.decode_ms or 0) + unsplit_ms,
                1000 * (best.kb_per_frame or 0),
                best.agreement,
            )
        )
    return placements


def camera_placement(unsplit_ms: float) -> Placement:
    """The whole network at the camera, which takes `unsplit_ms` there."""
    return Placement("all at the camera, only detections travel", "all here", unsplit_ms, 0, DETECTION_BYTES)


def _short_spec(record: EvaluationRecord) -> str:
    parameters = record.setting.split(",")
    if record.codec == "feature":
        calibrated = "" if "profile=none" not in parameters else ", uncalibrated"
        quality = next((parameter for parameter in parameters if parameter.startswith("quality=")), "")
        return f"feature:{quality}{calibrated}"
    return f"{record.codec}:{parameters[0]}"
