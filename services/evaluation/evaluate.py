"""What a codec costs in bytes and in detections, against the same network unsplit on the same pictures."""

from __future__ import annotations

import json
import platform
import time
from argparse import Namespace
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import torch
from rich.console import Console
from rich.progress import Progress

from codec.errors import BadCodecSpec
from codec.spec import CODECS, Codec, parse_codec
from services.errors import MissingCodec, SettingsError
from services.evaluation.agreement import confident
from services.evaluation.dataset import Dataset, LetterboxedPicture, letterboxed, read_clip, read_images
from services.evaluation.labels import ClassMap
from services.evaluation.pixel_codecs import FORMATS, Canvas, PixelCodec
from services.evaluation.report import report
from services.evaluation.runs import FeatureRun, PixelRun, scorable_detections
from services.evaluation.scores import EvaluationRecord, Scores, make_record
from services.evaluation.summary import print_summary
from services.loading import choose_device
from services.profiles import resolve
from stream.detections import Detections
from stream.errors import SourceError
from stream.latency import StageClock
from stream.letterbox import parse_size
from stream.network.download import find_weights
from stream.network.model import Model, load_model
from stream.network.names import DEFAULT_SPLIT
from stream.network.split import Head, Tail, Unsplit

AnyCodec: TypeAlias = Codec | PixelCodec

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


def evaluate(
    model: Model,
    codecs: Sequence[AnyCodec],
    dataset: Dataset,
    split: str = DEFAULT_SPLIT,
    size: int | tuple[int, int] = 640,
    *,
    watch: Callable[[str], None] = lambda what: None,
) -> list[EvaluationRecord]:
    """A record of the unsplit network and one of every codec, all on the same frames.

    The dataset is read once for the network and all codecs of tensors, which share the head's, and once more for
    each codec of pixels, whose canvases the unsplit network then sees. Holds one frame at a time, and those that an
    encoder looks ahead. `size` is what `canvas_for` takes. `watch` is told what runs, once a picture.
    Raises SourceError, UnknownSplitPoint or CodecError.
    """
    unsplit, classes, consecutive = (
        Unsplit(model),
        ClassMap(dataset.classes, model.names),
        dataset.kind == "clip",
    )
    runs = {codec: FeatureRun(codec, consecutive) for codec in codecs if not isinstance(codec, PixelCodec)}
    ceiling = Scores()
    truths = []
    tail = Tail(model, split)
    heads: dict[tuple[int, int], Head] = {}  # by canvas: images differ in shape
    for view in _told(letterboxed(dataset, classes, size), "features", watch):
        letterbox = view.letterbox
        if letterbox.canvas not in heads:
            heads[letterbox.canvas] = Head(model, split, letterbox.canvas)
        head = heads[letterbox.canvas]
        clock = StageClock(time.monotonic_ns())
        prediction = unsplit(view.canvas).cpu()
        clock.lap("unsplit", time.monotonic_ns())
        tensors = head(view.canvas)
        clock.lap("head", time.monotonic_ns())
        ceiling.durations.add(clock.durations_ns)
        found = scorable_detections(prediction, letterbox)
        truth = confident(found)
        truths.append(truth)
        ceiling.add_frame(found, truth, view.labels)
        for run in runs.values():
            prediction = run.predict(tensors, head.layout, letterbox.frame, tail)
            run.scores.add_frame(scorable_detections(prediction, letterbox), truth, view.labels)
    if not truths:
        raise SourceError(f"{dataset.name} holds no picture that can be read")
    all_scores = {
        codec: runs[codec].scores
        if not isinstance(codec, PixelCodec)
        else _watch_pixels(
            PixelRun(codec, consecutive),
            _told(letterboxed(dataset, classes, size), str(codec), watch),
            truths,
            unsplit,
        )
        for codec in codecs
    }
    return [
        make_record(None, dataset, ceiling, ceiling),
        *(make_record(codec, dataset, scores, ceiling) for codec, scores in all_scores.items()),
    ]


def _told(
    shown: Iterable[LetterboxedPicture], what: str, watch: Callable[[str], None]
) -> Iterator[LetterboxedPicture]:
    for view in shown:
        watch(what)
        yield view


def _watch_pixels(
    run: PixelRun, shown: Iterable[LetterboxedPicture], truths: Sequence[Detections], unsplit: Unsplit
) -> Scores:
    """What the unsplit network finds in canvases after coding, against what it found before."""
    waiting: deque[LetterboxedPicture] = deque()

    def canvases() -> Iterator[Canvas]:
        for view in shown:
            waiting.append(view)
            yield view.canvas

    for canvas, truth in zip(run.decoded(canvases()), truths, strict=True):
        view = waiting.popleft()
        run.scores.add_frame(scorable_detections(unsplit(canvas), view.letterbox), truth, view.labels)
    return run.scores


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
    return parse_codec(text)


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
        codec: codec
        for codec in codecs
        if not isinstance(codec, PixelCodec)
        and codec.takes_profile
        and (file is not None or codec.profile_is_open)
    }
    if not needy:
        if file is not None:
            raise SettingsError("--profile is for the feature codec, and none is to be measured")
        return list(codecs)
    profile = resolve(next(iter(needy.values())), model.weights_hash, split, file).profile
    return [needy[codec].with_profile(profile) if codec in needy else codec for codec in codecs]


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
    records: list[EvaluationRecord] = []
    for dataset in sources:
        with _progress(dataset, codecs, notices) as watch:
            found = evaluate(model, codecs, dataset, options.split, size, watch=watch)
        if found[0].map is not None:
            settings["labels"] = str(ClassMap(dataset.classes, model.names))
        print_summary(found, console)
        records += found
        if options.json:
            written = {**settings, "records": [asdict(record) for record in records]}
            options.json.write_text(json.dumps(written, indent=2) + "\n")
        if options.html:
            options.html.write_text(report(settings, records))


@contextmanager
def _progress(
    dataset: Dataset, codecs: Sequence[AnyCodec], console: Console
) -> Iterator[Callable[[str], None]]:
    """A bar that tells what runs, to be told once a picture."""
    passes = 1 + sum(isinstance(codec, PixelCodec) for codec in codecs)
    with Progress(console=console) as progress:
        bar = progress.add_task(dataset.name, total=dataset.expected * passes or None)
        yield lambda what: progress.update(bar, advance=1, description=f"{dataset.name}: {what}")


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
