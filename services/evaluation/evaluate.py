"""What a codec costs in bytes and in detections, against the same network unsplit on the same pictures."""

from __future__ import annotations

import json
import platform
import time
from argparse import Namespace
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import torch
import torchvision  # noqa: F401 # ultralytics then takes its compiled NMS: the same boxes, ten times faster here
from rich.console import Console
from rich.progress import Progress

from codec.errors import BadCodecSpec
from codec.feature.codec import Feature
from codec.interface import Decoder, Encoder
from codec.layout import FloatArray, Layout, raw_bytes
from codec.packet import Stamp
from codec.spec import CODECS, CodecSpec
from services.errors import MissingCodec, SettingsError
from services.evaluation.agreement import confident
from services.evaluation.dataset import Dataset, read_clip, read_images
from services.evaluation.labels import ClassMap, Objects
from services.evaluation.pixel_codecs import FORMATS, Canvas, Coder, PixelCodec
from services.evaluation.record import Record, Scores, make_record
from services.evaluation.report import report
from services.evaluation.summary import print_summary
from services.loading import choose_device
from services.profiles import resolve
from stream.detections import Detections
from stream.latency import StageClock
from stream.letterbox import Letterbox, canvas_for, parse_size
from stream.network.cut import DEFAULT_SPLIT
from stream.network.download import find_weights
from stream.network.model import Model, load_model
from stream.network.nms import detect
from stream.network.split import Head, Tail, Unsplit
from stream.sources.base import SourceError

AnyCodec: TypeAlias = CodecSpec | PixelCodec

# What a codec's name alone stands for: the settings that draw its curve.
STANDARD_SETS: Mapping[str, Sequence[str]] = {
    "feature": [f"feature:quality={quality}" for quality in range(1, 11)],
    "raw": ["raw"],
    "rle": [f"rle:bits={bits}" for bits in range(2, 9)],
    **{
        name: [f"{name}:{form.parameter}={value}" for value in form.standard]
        for name, form in FORMATS.items()
    },
}


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """One picture as the network is shown it."""

    canvas: Canvas
    letterbox: Letterbox
    labels: Objects | None  # by the network's classes


def views(footage: Dataset, classes: ClassMap, size: int | tuple[int, int]) -> Iterator[View]:
    """Every picture of the footage on its canvas. Raises SourceError."""
    for picture in footage.pictures:
        frame = picture.image.shape[0], picture.image.shape[1]
        letterbox = Letterbox(frame, canvas_for(size, *frame))
        labels = None
        if picture.labels is not None:
            crowd = classes.translate(picture.crowd) if picture.crowd else None
            labels = Objects(classes.translate(picture.labels), crowd)
        yield View(letterbox.apply(picture.image), letterbox, labels)


class FeatureRun:
    """One codec of tensors on its way along one source."""

    def __init__(self, codec: CodecSpec, consecutive: bool) -> None:
        self.codec = codec
        self.tally = Scores()
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


class PixelCourse:
    """One codec of pixels on its way along one source."""

    def __init__(self, codec: PixelCodec, consecutive: bool) -> None:
        self.codec = codec
        self.tally = Scores()
        self._consecutive = consecutive

    def decoded(self, canvases: Iterable[Canvas]) -> Iterator[Canvas]:
        """The canvases after coding, in their order; one may come out only after others have gone in.

        Consecutive canvases share a coder; any other gets a new one, and so is coded by itself.
        """
        coder: Coder | None = None
        for canvas in canvases:
            if coder is None or not self._consecutive:
                coder = self.codec.coder((canvas.shape[0], canvas.shape[1]))
            yield from self._code(coder, canvas, last=not self._consecutive)
        if coder and self._consecutive:
            yield from self._code(coder, None, last=True)
            if self.codec.format.delayed:
                self.tally.level_times()

    def _code(self, coder: Coder, canvas: Canvas | None, last: bool) -> list[Canvas]:
        tally = self.tally
        clock = StageClock(time.monotonic_ns())
        packed = [] if canvas is None else coder.encode(canvas)
        if last:
            packed += coder.encode(None)
        clock.lap("encode")
        decoded = [shown for packet in packed for shown in coder.decode(packet)]
        if last:
            decoded += coder.decode(None)
        clock.lap("decode")
        if canvas is not None or decoded:
            tally.time(clock)
        tally.keyframes += sum(packet.keyframe for packet in packed)
        tally.coded_bytes += sum(len(packet.data) for packet in packed)
        return decoded


def evaluate(
    model: Model,
    codecs: Sequence[AnyCodec],
    footage: Dataset,
    split: str = DEFAULT_SPLIT,
    size: int | tuple[int, int] = 640,
    *,
    watch: Callable[[str], None] = lambda what: None,
) -> list[Record]:
    """A record of the unsplit network and one of every codec, all on the same frames.

    The footage is read once for the network and all codecs of tensors, which share the head's, and once more for
    each codec of pixels, whose canvases the unsplit network then sees. Holds one frame at a time, and those that an
    encoder looks ahead. `size` is what `canvas_for` takes. `watch` is told what runs, once a picture.
    Raises SourceError, UnknownSplitPoint or CodecError.
    """
    unsplit, classes, consecutive = (
        Unsplit(model),
        ClassMap(footage.classes, model.names),
        footage.kind == "clip",
    )
    courses = {codec: FeatureRun(codec, consecutive) for codec in codecs if isinstance(codec, CodecSpec)}
    ceiling = Scores()
    truths = []
    tail = Tail(model, split)
    heads: dict[tuple[int, int], Head] = {}  # by canvas: images differ in shape
    for view in _told(views(footage, classes, size), "features", watch):
        letterbox = view.letterbox
        if letterbox.canvas not in heads:
            heads[letterbox.canvas] = Head(model, split, letterbox.canvas)
        head = heads[letterbox.canvas]
        clock = StageClock(time.monotonic_ns())
        prediction = unsplit(view.canvas).cpu()
        clock.lap("unsplit")
        tensors = head(view.canvas)
        clock.lap("head")
        ceiling.time(clock)
        found = find(prediction, letterbox)
        truth = confident(found)
        truths.append(truth)
        ceiling.judge(found, truth, view.labels)
        for course in courses.values():
            prediction = course.predict(tensors, head.layout, letterbox.frame, tail)
            course.tally.judge(find(prediction, letterbox), truth, view.labels)
    if not truths:
        raise SourceError(f"{footage.name} holds no picture that can be read")
    tallies = {
        codec: courses[codec].tally
        if isinstance(codec, CodecSpec)
        else _watch_pixels(
            PixelCourse(codec, consecutive),
            _told(views(footage, classes, size), str(codec), watch),
            truths,
            unsplit,
        )
        for codec in codecs
    }
    return [
        make_record(None, footage, ceiling, ceiling),
        *(make_record(codec, footage, tally, ceiling) for codec, tally in tallies.items()),
    ]


def _told(shown: Iterable[View], what: str, watch: Callable[[str], None]) -> Iterator[View]:
    for view in shown:
        watch(what)
        yield view


def _watch_pixels(
    course: PixelCourse, shown: Iterable[View], truths: Sequence[Detections], unsplit: Unsplit
) -> Scores:
    """What the unsplit network finds in canvases after coding, against what it found before."""
    waiting: deque[View] = deque()

    def canvases() -> Iterator[Canvas]:
        for view in shown:
            waiting.append(view)
            yield view.canvas

    for canvas, truth in zip(course.decoded(canvases()), truths, strict=True):
        view = waiting.popleft()
        course.tally.judge(find(unsplit(canvas), view.letterbox), truth, view.labels)
    return course.tally


def find(prediction: torch.Tensor, letterbox: Letterbox) -> Detections:
    """Every detection that can count for average precision, with YOLOv5's settings for measuring it."""
    return detect(prediction, letterbox, conf=0.001, iou=0.6, max_det=300, multi_label=True)


def parse_codecs(texts: Iterable[str]) -> list[AnyCodec]:
    """The codecs to evaluate, each once: a name alone stands for its standard set.

    Raises BadCodecSpec or MissingCodec.
    """
    specs = (spec for text in texts for spec in STANDARD_SETS.get(text, (text,)))
    return list(dict.fromkeys(_parse_codec(spec) for spec in specs))


def _parse_codec(text: str) -> AnyCodec:
    name = text.partition(":")[0]
    if name in FORMATS:
        return PixelCodec.parse(text)
    if name not in {codec.name for codec in CODECS}:
        known = ", ".join([*(codec.name for codec in CODECS), *FORMATS])
        raise BadCodecSpec(f"no codec {name[:80]!r}; there are {known}")
    return CodecSpec.parse(text)


def _standard_codecs(notice: Callable[[str], None]) -> list[AnyCodec]:
    """All standard sets, but for those of codecs that are not to be had here."""
    codecs: list[AnyCodec] = []
    for name in STANDARD_SETS:
        try:
            codecs += parse_codecs([name])
        except MissingCodec as error:
            notice(f"left out: {error}")
    return codecs


def _with_profile(codecs: Sequence[AnyCodec], model: Model, split: str, file: Path | None) -> list[AnyCodec]:
    """The codecs with the network's calibration profile where they need one, which is looked for once.

    Raises SettingsError or ProfileError.
    """
    needy = {
        codec: codec.codec
        for codec in codecs
        if isinstance(codec, CodecSpec)
        and isinstance(codec.codec, Feature)
        and (file is not None or codec.codec.profile == "auto")
    }
    if not needy:
        if file is not None:
            raise SettingsError("--profile is for the feature codec, and none is to be measured")
        return list(codecs)
    found = resolve(next(iter(needy)), model.weights_hash, split, file).codec
    assert isinstance(found, Feature)
    return [
        CodecSpec(replace(needy[codec], profile=found.profile))
        if isinstance(codec, CodecSpec) and codec in needy
        else codec
        for codec in codecs
    ]


def run_evaluate(options: Namespace) -> None:
    """Evaluate on all given sources, print what came of each, and write `--json` and `--html` if they are given.

    The files are written after every source, so that what is measured is not lost.
    Raises SettingsError, BadCodecSpec, InvalidSize, SourceError, UnknownSplitPoint, ProfileError, WeightsError or
    CheckpointError.
    """
    if min(options.every, options.threads, 1 if options.max_frames is None else options.max_frames) < 1:
        raise SettingsError("--every, --threads and --max-frames take numbers from 1")
    for path in (options.json, options.html):
        if path and not path.absolute().parent.is_dir():
            raise SettingsError(f"there is no folder {path.parent} to write {path.name} to")
    console, notices = Console(), Console(stderr=True)
    codecs = parse_codecs(options.codec) if options.codec else _standard_codecs(notices.print)
    size = parse_size(options.size)
    sources = _sources(options)
    torch.set_num_threads(options.threads)
    device = choose_device(options.device)
    model = load_model(find_weights(options.model), device)
    codecs = _with_profile(codecs, model, options.split, options.profile)
    settings = _settings(options, model, device)
    records: list[Record] = []
    for footage in sources:
        with _progress(footage, codecs, notices) as watch:
            found = evaluate(model, codecs, footage, options.split, size, watch=watch)
        if found[0].map is not None:
            settings["labels"] = str(ClassMap(footage.classes, model.names))
        print_summary(found, console)
        records += found
        if options.json:
            written = {**settings, "records": [asdict(record) for record in records]}
            options.json.write_text(json.dumps(written, indent=2) + "\n")
        if options.html:
            options.html.write_text(report(settings, records))


@contextmanager
def _progress(
    footage: Dataset, codecs: Sequence[AnyCodec], console: Console
) -> Iterator[Callable[[str], None]]:
    """A bar that tells what runs, to be told once a picture."""
    passes = 1 + sum(isinstance(codec, PixelCodec) for codec in codecs)
    with Progress(console=console) as progress:
        bar = progress.add_task(footage.name, total=footage.expected * passes or None)
        yield lambda what: progress.update(bar, advance=1, description=f"{footage.name}: {what}")


def _sources(options: Namespace) -> list[Dataset]:
    sampling = {"every": options.every, "max_frames": options.max_frames}
    if options.labels and not options.data:
        raise SettingsError("--labels tells what is in the images of --data, which is missing")
    sources = [read_images(options.data, **sampling, labels=options.labels)] if options.data else []
    sources += [read_clip(clip, **sampling) for clip in options.clip or ()]
    if not sources:
        raise SettingsError(
            "nothing to evaluate on; give a folder of images with --data, or videos with --clip"
        )
    return sources


def _settings(options: Namespace, model: Model, device: str) -> dict[str, Any]:
    """What the records were made with, for whoever wants to make them again."""
    return {
        "model": Path(options.model).stem,
        "weights": model.weights_hash,
        "split": options.split,
        "size": options.size,
        "every": options.every,
        "max_frames": options.max_frames,
        "threads": options.threads,
        "device": device,
        "machine": platform.processor() or platform.machine(),
        "versions": {name: version(name) for name in ("splitcast", "torch", "av", "pillow")},
    }
