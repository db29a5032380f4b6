"""What an evaluation counts, and the record that it leaves of one codec on one source."""

from __future__ import annotations

from dataclasses import dataclass, field

from codec.spec import Codec
from services.evaluation.agreement import PrecisionMeter
from services.evaluation.dataset import Dataset
from services.evaluation.labels import Objects
from services.evaluation.pixel_codecs import PixelCodec
from stream.detections import Detections
from stream.latency import StageDurations


@dataclass(frozen=True, slots=True)
class EvaluationRecord:
    """What one codec with one setting did on one source. None where a number does not apply.

    A kB is 1000 bytes. Times are medians over the frames, each on this machine with the network's thread count; of
    an encoder that looks ahead they are means, because its work cannot be told apart by frames.
    """

    codec: str  # "none": the network unsplit, which is the ceiling
    setting: str  # every parameter, as in a codec's spec
    data: str | None  # name of the folder of images, or None
    clip: str | None  # name of the video file, or None
    kb_per_frame: float | None  # everything that is sent, keyframes included
    raw_kb_per_frame: float | None  # the same coefficients as float32
    bits_per_coefficient: float | None  # of everything that is sent
    map50: float | None  # against the labels, every class counts alike: COCO's mAP
    map: float | None
    agreement: float | None  # against the unsplit network's confident detections, every object counts alike
    agreement50: float | None
    encode_ms: float | None
    decode_ms: float | None
    head_ms: float | None
    tail_ms: float | None
    unsplit_ms: float | None  # head and tail with nothing between, without NMS
    frames: int
    keyframes: int | None
    objects: int  # confident detections of the unsplit network, which agreement counts

    @property
    def spec(self) -> str:
        """Codec and setting as they are written."""
        return f"{self.codec}:{self.setting}".removesuffix(":")

    @property
    def source(self) -> str:
        """Name of the folder or clip."""
        return self.data or self.clip or ""


@dataclass(slots=True)
class Scores:
    """What came out of one codec, or of the network unsplit, gathered frame by frame."""

    agreement: PrecisionMeter = field(default_factory=PrecisionMeter)
    accuracy: PrecisionMeter = field(default_factory=PrecisionMeter)
    frames: int = 0
    keyframes: int = 0
    coded_bytes: int = 0
    raw_bytes: int = 0
    durations: StageDurations = field(default_factory=StageDurations)

    def add_frame(self, detections: Detections, truth: Detections, labels: Objects | None) -> None:
        """Add one frame's detections: against the unsplit network's, and against its labels if it has any."""
        self.frames += 1
        self.agreement.add(detections, truth)
        if labels is not None:
            self.accuracy.add(detections, labels.single, labels.crowd)

    def median_ms(self, stage: str) -> float | None:
        """Median of a stage over the frames; None if it never ran."""
        median_ms = self.durations.medians_ms().get(stage)
        return None if median_ms is None else round(median_ms, 3)


def make_record(
    codec: Codec | PixelCodec | None, dataset: Dataset, scores: Scores, ceiling: Scores
) -> EvaluationRecord:
    """The record of one codec; of the network unsplit for None, whose scores are the ceiling itself."""
    name, _, setting = str(codec or "none").partition(":")
    accuracy, agreement = scores.accuracy.over_classes(), scores.agreement.over_objects()
    sent = codec is not None
    split = sent and not isinstance(codec, PixelCodec)
    return EvaluationRecord(
        codec=name,
        setting=setting,
        data=dataset.name if dataset.kind == "data" else None,
        clip=dataset.name if dataset.kind == "clip" else None,
        kb_per_frame=round(scores.coded_bytes / scores.frames / 1e3, 3) if sent else None,
        raw_kb_per_frame=round(scores.raw_bytes / scores.frames / 1e3, 3) if split else None,
        bits_per_coefficient=round(8 * scores.coded_bytes / (scores.raw_bytes / 4), 4) if split else None,
        map50=round(accuracy.ap50, 4) if accuracy else None,
        map=round(accuracy.ap, 4) if accuracy else None,
        agreement=round(agreement.ap, 4) if agreement else None,
        agreement50=round(agreement.ap50, 4) if agreement else None,
        encode_ms=scores.median_ms("encode"),
        decode_ms=scores.median_ms("decode"),
        head_ms=ceiling.median_ms("head") if split else None,
        tail_ms=scores.median_ms("tail"),
        unsplit_ms=ceiling.median_ms("unsplit"),
        frames=scores.frames,
        keyframes=scores.keyframes if sent else None,
        objects=scores.agreement.objects,
    )
