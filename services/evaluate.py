"""What a codec costs in bytes and in detections, against the same network unsplit on the same pictures."""

from __future__ import annotations

import json
import platform
import statistics
import time
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from codec.interface import Decoder, Encoder
from codec.layout import FloatArray, Layout, raw_bytes
from codec.packet import Stamp
from codec.spec import CodecSpec
from services.agreement import Matches, confident
from services.config import ConfigError
from services.footage import Footage, read_clip, read_images
from services.network import choose_device
from stream.cut import DEFAULT_SPLIT
from stream.detections import Detections
from stream.letterbox import Letterbox, canvas_for, parse_size
from stream.model import Model, load_model
from stream.nms import detect
from stream.source import SourceError
from stream.split import Head, Tail, Unsplit
from stream.stages import StageClock
from stream.weights import find_weights

# What a codec's name alone stands for: the settings that draw its curve.
STANDARD_SETS: Mapping[str, Sequence[str]] = {"rle": [f"rle:bits={bits}" for bits in range(2, 9)]}


@dataclass(frozen=True, slots=True)
class Record:
    """What one codec with one setting did on one source. None where a number does not apply.

    A kB is 1000 bytes. Times are medians over the frames, each on this machine with the network's thread count.
    """

    codec: str  # "none": the network unsplit, which is the ceiling
    setting: str  # every parameter, as in a codec's spec
    data: str | None  # name of the folder of images, or None
    clip: str | None  # name of the video file, or None
    kb_per_frame: float | None  # whole packets, keyframes included
    raw_kb_per_frame: float | None  # the same coefficients as float32
    bits_per_coefficient: float | None  # of whole packets
    map50: float | None  # against the labels, every class counts alike: COCO's mAP
    map: float | None
    agreement: float | None  # against the unsplit network's confident detections, every object counts alike
    agreement50: float | None
    encode_ms: float | None
    decode_ms: float | None
    head_ms: float | None
    tail_ms: float | None
    unsplit_ms: float | None  # the whole network at once, like head and tail without NMS
    frames: int
    keyframes: int | None
    objects: int  # confident detections of the unsplit network, which agreement counts


@dataclass(slots=True)
class Tally:
    """What came out of one codec, or of the network unsplit, gathered frame by frame."""

    agreement: Matches = field(default_factory=Matches)
    accuracy: Matches = field(default_factory=Matches)
    frames: int = 0
    keyframes: int = 0
    coded_bytes: int = 0
    raw_bytes: int = 0
    durations_ns: dict[str, list[int]] = field(default_factory=dict)

    def judge(self, found: Detections, truth: Detections, labels: Detections | None) -> None:
        """Book one frame's detections: against the unsplit network's, and against its labels if it has any."""
        self.frames += 1
        self.agreement.add(found, truth)
        if labels is not None:
            self.accuracy.add(found, labels)

    def time(self, clock: StageClock) -> None:
        """Book how long one frame's stages took."""
        for stage, duration_ns in clock.durations_ns.items():
            self.durations_ns.setdefault(stage, []).append(duration_ns)

    def median_ms(self, stage: str) -> float | None:
        """Median of a stage over the frames; None if it never ran."""
        durations_ns = self.durations_ns.get(stage)
        return round(statistics.median(durations_ns) / 1e6, 3) if durations_ns else None


class Course:
    """One codec on its way along one source."""

    def __init__(self, codec: CodecSpec, consecutive: bool) -> None:
        self.codec = codec
        self.tally = Tally()
        self._consecutive = consecutive
        self._ends: tuple[Encoder, Decoder] | None = None

    def predict(
        self, tensors: Mapping[str, FloatArray], layout: Layout, frame: tuple[int, int], tail: Tail
    ) -> torch.Tensor:
        """Predictions from one frame's tensors after coding; `frame` is (H, W) of the picture in pixels.

        Consecutive frames share encoder and decoder; any other gets new ones, so that its packet is a keyframe.
        """
        if self._ends is None or not self._consecutive:
            self._ends = self.codec.encoder(layout), self.codec.decoder(layout)
        encoder, decoder = self._ends
        tally = self.tally
        clock = StageClock(time.monotonic_ns())
        packet = encoder.encode(tensors, Stamp(tally.frames, 0, *frame))
        clock.lap("encode")
        decoded = decoder.decode(packet.data)
        clock.lap("decode")
        prediction = tail(decoded.tensors).cpu()  # waits for the device, so that its time is all booked
        clock.lap("tail")
        tally.time(clock)
        tally.keyframes += decoded.header.keyframe
        tally.coded_bytes += len(packet.data)
        tally.raw_bytes += raw_bytes(layout)
        return prediction


def evaluate(
    model: Model,
    codecs: Sequence[CodecSpec],
    footage: Footage,
    split: str = DEFAULT_SPLIT,
    size: int | tuple[int, int] = 640,
) -> list[Record]:
    """A record of the unsplit network and one of every codec, all on the same frames.

    Each frame is read, and run through the network unsplit and through the head, once; the codecs then share the
    head's tensors. Holds one frame at a time. `size` is what `canvas_for` takes.
    Raises SourceError, UnknownSplitPoint or CodecError.
    """
    unsplit, tail = Unsplit(model), Tail(model, split)
    heads: dict[tuple[int, int], Head] = {}  # by canvas: images differ in shape
    ceiling = Tally()
    courses = [Course(codec, consecutive=footage.kind == "clip") for codec in codecs]
    for picture in footage.pictures:
        frame = picture.image.shape[0], picture.image.shape[1]
        letterbox = Letterbox(frame, canvas_for(size, *frame))
        canvas = letterbox.apply(picture.image)
        if letterbox.canvas not in heads:
            heads[letterbox.canvas] = Head(model, split, letterbox.canvas)
        head = heads[letterbox.canvas]
        clock = StageClock(time.monotonic_ns())
        prediction = unsplit(canvas).cpu()
        clock.lap("unsplit")
        tensors = head(canvas)
        clock.lap("head")
        ceiling.time(clock)
        found = _find(prediction, letterbox)
        truth = confident(found)
        ceiling.judge(found, truth, picture.labels)
        for course in courses:
            prediction = course.predict(tensors, head.layout, frame, tail)
            course.tally.judge(_find(prediction, letterbox), truth, picture.labels)
    if not ceiling.frames:
        raise SourceError(f"{footage.name} holds no picture that can be read")
    return [
        _record(None, footage, ceiling, ceiling),
        *(_record(course.codec, footage, course.tally, ceiling) for course in courses),
    ]


def _find(prediction: torch.Tensor, letterbox: Letterbox) -> Detections:
    """Every detection that can count for average precision, with YOLOv5's settings for measuring it."""
    return detect(prediction, letterbox, conf=0.001, iou=0.6, max_det=300, multi_label=True)


def _record(codec: CodecSpec | None, footage: Footage, tally: Tally, ceiling: Tally) -> Record:
    name, _, setting = str(codec or "none").partition(":")
    accuracy, agreement = tally.accuracy.over_classes(), tally.agreement.over_objects()
    sent = codec is not None
    return Record(
        codec=name,
        setting=setting,
        data=footage.name if footage.kind == "data" else None,
        clip=footage.name if footage.kind == "clip" else None,
        kb_per_frame=round(tally.coded_bytes / tally.frames / 1e3, 3) if sent else None,
        raw_kb_per_frame=round(tally.raw_bytes / tally.frames / 1e3, 3) if sent else None,
        bits_per_coefficient=round(8 * tally.coded_bytes / (tally.raw_bytes / 4), 4) if sent else None,
        map50=round(accuracy.ap50, 4) if accuracy else None,
        map=round(accuracy.ap, 4) if accuracy else None,
        agreement=round(agreement.ap, 4) if agreement else None,
        agreement50=round(agreement.ap50, 4) if agreement else None,
        encode_ms=tally.median_ms("encode"),
        decode_ms=tally.median_ms("decode"),
        head_ms=ceiling.median_ms("head") if sent else None,
        tail_ms=tally.median_ms("tail"),
        unsplit_ms=ceiling.median_ms("unsplit"),
        frames=tally.frames,
        keyframes=tally.keyframes if sent else None,
        objects=tally.agreement.objects,
    )


def parse_codecs(texts: Iterable[str]) -> list[CodecSpec]:
    """The codecs to evaluate, each once: a name alone stands for its standard set. Raises BadCodecSpec."""
    specs = (spec for text in texts for spec in STANDARD_SETS.get(text, (text,)))
    return list(dict.fromkeys(CodecSpec.parse(spec) for spec in specs))


def run_evaluate(options: Namespace) -> None:
    """Evaluate on all given sources, print a table of each, and write the records to `--json` if it is given.

    Raises ConfigError, BadCodecSpec, InvalidSize, SourceError, UnknownSplitPoint, WeightsError or CheckpointError.
    """
    if min(options.every, options.threads, 1 if options.max_frames is None else options.max_frames) < 1:
        raise ConfigError("--every, --threads and --max-frames take numbers from 1")
    codecs, size = parse_codecs(options.codec or STANDARD_SETS), parse_size(options.size)
    sampling = {"every": options.every, "max_frames": options.max_frames}
    sources = [read_clip(clip, **sampling) for clip in options.clip or ()]
    if options.data:
        sources.insert(0, read_images(options.data, **sampling))
    if not sources:
        raise ConfigError(
            "nothing to evaluate on; give a folder of images with --data, or videos with --clip"
        )
    torch.set_num_threads(options.threads)
    device = choose_device(options.device)
    model = load_model(find_weights(options.model), device)
    records: list[Record] = []
    for footage in sources:
        with Progress(console=Console(stderr=True)) as progress:
            pictures = progress.track(footage.pictures, footage.expected or None, description=footage.name)
            found = evaluate(model, codecs, replace(footage, pictures=iter(pictures)), options.split, size)
        Console().print(_table(found, footage))
        records += found
    if options.json:
        settings = {
            "model": Path(options.model).stem,
            "weights": model.weights_hash,
            "split": options.split,
            "size": options.size,
            **sampling,
            "threads": options.threads,
            "device": device,
            "machine": platform.processor() or platform.machine(),
        }
        written = {**settings, "records": [asdict(record) for record in records]}
        options.json.write_text(json.dumps(written, indent=2) + "\n")


def _table(records: Sequence[Record], footage: Footage) -> Table:
    first = records[0]
    table = Table(
        title=f"{footage.name}: {first.frames} frames, {first.objects} confident detections of the unsplit network",
        caption=(
            "kB: 1000 bytes. Bits: per coefficient. mAP: AP50-95 against the labels. "
            "Agreement: AP50-95 against those detections. Times: median ms."
        ),
    )
    table.add_column("codec", overflow="fold")
    for heading in ("kB/frame", "bits", "mAP", "agreement", "encode", "decode"):
        table.add_column(heading, justify="right")
    for record in records:
        table.add_row(
            _short_name(record, records),
            _cell(record.kb_per_frame, 1),
            _cell(record.bits_per_coefficient, 2),
            _cell(record.map, 3),
            _cell(record.agreement, 3),
            _cell(record.encode_ms, 2),
            _cell(record.decode_ms, 2),
        )
    return table


def _short_name(record: Record, records: Sequence[Record]) -> str:
    """The codec with those of its parameters in which its records differ."""
    settings = [set(other.setting.split(",")) for other in records if other.codec == record.codec]
    common = set.intersection(*settings) if len(settings) > 1 else set()
    parameters = (parameter for parameter in record.setting.split(",") if parameter not in common)
    return " ".join((record.codec, *parameters)).rstrip()


def _cell(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
