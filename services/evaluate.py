"""What a codec costs in bytes and in detections, against the same network unsplit on the same pictures."""

from __future__ import annotations

import json
import platform
import statistics
import time
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from codec.interface import Decoder, Encoder
from codec.layout import FloatArray, Layout, raw_bytes
from codec.packet import Stamp
from codec.spec import CodecSpec
from services.agreement import Matches, confident
from services.config import ConfigError
from services.network import choose_device
from stream.cut import DEFAULT_SPLIT
from stream.detections import Detections
from stream.letterbox import Letterbox, canvas_for, parse_size
from stream.model import Model, load_model
from stream.nms import detect
from stream.recorded_source import IMAGE_SUFFIXES
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


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One picture and, where it is known, what there is to see."""

    image: NDArray[np.uint8]  # (H, W, 3), BGR
    labels: Detections | None


@dataclass(frozen=True, slots=True, eq=False)
class Footage:
    """Pictures to evaluate on, read while they are iterated over, once."""

    kind: Literal["data", "clip"]  # separate images, or the consecutive frames of a clip
    name: str
    expected: int  # number of pictures, for the progress bar: a clip's container may be wrong, 0 is unknown
    pictures: Iterator[Picture]


def read_images(folder: Path, every: int = 1, max_frames: int | None = None) -> Footage:
    """Every n-th image of a folder in the order of names, with its YOLO labels if there are any.

    Labels lie where ultralytics looks for them, in the folder whose path has `labels` for the last `images`. If
    there are some, an image without has no objects. Raises SourceError here or while reading.
    """
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise SourceError(f"there are no images in {folder}; give a folder that holds some")
    paths = paths[::every][:max_frames]
    labels = _label_folder(folder)

    def read() -> Iterator[Picture]:
        for path in paths:
            image = cv2.imread(str(path))
            if image is None:
                raise SourceError(f"{path} is no image that OpenCV can read; take it out of the folder")
            height, width = image.shape[:2]
            yield Picture(image, _read_labels(labels / f"{path.stem}.txt", height, width) if labels else None)

    return Footage("data", folder.absolute().name, len(paths), read())


def _label_folder(images: Path) -> Path | None:
    parts = list(images.absolute().parts)
    if "images" not in parts:
        return None
    parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    labels = Path(*parts)
    return labels if any(labels.glob("*.txt")) else None


def _read_labels(path: Path, height: int, width: int) -> Detections:
    """The objects of one picture: rows of class, centre x, centre y, width, height in shares of the picture."""
    text = path.read_text(errors="replace") if path.exists() else ""
    rows = [line.split() for line in text.splitlines() if line.strip()]
    try:
        values = np.array(rows, np.float32).reshape(len(rows), 5)
    except ValueError:
        raise SourceError(f"{path} does not hold rows of class, centre x, centre y, width, height") from None
    centre, extent = values[:, 1:3], values[:, 3:5]
    corners = np.hstack((centre - extent / 2, centre + extent / 2)) * ([width, height] * 2)
    return Detections(
        corners.astype(np.float32), np.ones(len(rows), np.float32), values[:, 0].astype(np.int64)
    )


def read_clip(path: Path, every: int = 1, max_frames: int | None = None) -> Footage:
    """Every n-th frame of a video file from its first. Raises SourceError."""
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        raise SourceError(f"cannot read {path}; give a video file")
    expected = -(-max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0) // every)

    def read() -> Iterator[Picture]:
        try:
            while True:
                good, image = capture.read()
                if not good:
                    return
                yield Picture(image, labels=None)
                for _ in range(every - 1):
                    capture.grab()
        finally:
            capture.release()

    frames = expected if max_frames is None else min(expected, max_frames)
    return Footage("clip", path.name, frames, islice(read(), max_frames))


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
