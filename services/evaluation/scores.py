"""What an evaluation counts, and the record that it leaves of one codec on one source."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import fmean

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
    distortion: float | None  # from the unsplit network, mean over its anchors; None if no anchor scores
    anchors: int  # of the unsplit network that distortion counts, see ScoredAnchors
    keyframe_kb: float | None  # mean of the keyframes, and of all other frames
    difference_kb: float | None
    frame_distortion: tuple[float, ...]  # of each frame the sum over its anchors
    frame_bytes: tuple[int, ...] | None
    frame_is_key: tuple[bool, ...] | None
    frame_sequence: tuple[int, ...]  # frames of one number are consecutive, see LabeledPicture

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
    raw_bytes: int = 0
    durations: StageDurations = field(default_factory=StageDurations)
    distortions: list[float] = field(default_factory=list)  # of each frame
    sequences: list[int] = field(default_factory=list)  # of each frame
    anchors: int = 0
    frame_bytes: list[int] = field(default_factory=list)  # of each frame
    frame_is_key: list[bool] = field(default_factory=list)

    @property
    def coded_bytes(self) -> int:
        return sum(self.frame_bytes)

    @property
    def keyframes(self) -> int:
        return sum(self.frame_is_key)

    def mean_bytes(self, keyframes: bool) -> float | None:
        """Of the keyframes, or of all other frames; None if there are none."""
        sizes = [
            size
            for size, is_key in zip(self.frame_bytes, self.frame_is_key, strict=True)
            if is_key == keyframes
        ]
        return fmean(sizes) if sizes else None

    def add_packet(self, number: int, size: int, keyframe: bool) -> None:
        """Count the bytes of frame `number`, which may come in several packets."""
        missing = number + 1 - len(self.frame_bytes)
        self.frame_bytes += [0] * missing
        self.frame_is_key += [False] * missing
        self.frame_bytes[number] += size
        self.frame_is_key[number] |= keyframe

    def add_distortion(self, distortion: float, anchors: int, sequence: int) -> None:
        """Add that of one frame of a sequence, in which the unsplit network sees so many anchors."""
        self.sequences.append(sequence)
        self.distortions.append(distortion)
        self.anchors += anchors

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


@dataclass(frozen=True, slots=True)
class Measured:
    """A codec, or None for the network unsplit, and what came out of it."""

    codec: Codec | PixelCodec | None
    scores: Scores

    @property
    def name(self) -> str:
        """Of the codec, without its setting."""
        return str(self.codec or "none").partition(":")[0]


def make_record(measured: Measured, dataset: Dataset, ceiling: Scores) -> EvaluationRecord:
    """The record of one codec, or of the network unsplit, whose scores are the ceiling itself."""
    codec, scores = measured.codec, measured.scores
    name, _, setting = str(codec or "none").partition(":")
    accuracy, agreement = scores.accuracy.over_classes(), scores.agreement.over_objects()
    sent = codec is not None
    key_bytes, difference_bytes = scores.mean_bytes(keyframes=True), scores.mean_bytes(keyframes=False)
    split = sent and not isinstance(codec, PixelCodec)
    return EvaluationRecord(
        codec=name,
        setting=setting,
        data=dataset.name if dataset.kind == "data" else None,
        clip=dataset.name if dataset.kind == "clip" else None,
        kb_per_frame=_kilobytes(scores.coded_bytes / scores.frames) if sent else None,
        raw_kb_per_frame=_kilobytes(scores.raw_bytes / scores.frames) if split else None,
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
        distortion=round(sum(scores.distortions) / scores.anchors, 5) if scores.anchors else None,
        anchors=scores.anchors,
        keyframe_kb=_kilobytes(key_bytes),
        difference_kb=_kilobytes(difference_bytes),
        frame_distortion=tuple(round(value, 5) for value in scores.distortions),
        frame_bytes=tuple(scores.frame_bytes) if sent else None,
        frame_is_key=tuple(scores.frame_is_key) if sent else None,
        frame_sequence=tuple(scores.sequences),
    )


def _kilobytes(size: float | None) -> float | None:
    return None if size is None else round(size / 1e3, 3)
