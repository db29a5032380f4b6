"""What a codec costs in bytes and in detections, against the same network unsplit on the same pictures."""

from __future__ import annotations

import json
import platform
import time
from argparse import Namespace
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeGuard

import torch
from rich.console import Console
from rich.progress import Progress

from codec.spec import Codec
from services.errors import SettingsError
from services.evaluation.agreement import confident
from services.evaluation.codec_sets import AnyCodec, parse_codecs, standard_codecs
from services.evaluation.dataset import Dataset, LetterboxedPicture, letterboxed, read_clip, read_images
from services.evaluation.labels import ClassMap
from services.evaluation.pixel_codecs import Canvas, PixelCodec
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
    classes = ClassMap(dataset.classes, model.names)
    consecutive = dataset.kind == "clip"
    unsplit = Unsplit(model)
    runs = {
        codec: PixelRun(codec, consecutive)
        if isinstance(codec, PixelCodec)
        else FeatureRun(codec, consecutive)
        for codec in codecs
    }

    def pictures(passing: str) -> Iterator[LetterboxedPicture]:
        for picture in letterboxed(dataset, classes, size):
            watch(passing)
            yield picture

    feature_runs = [run for run in runs.values() if isinstance(run, FeatureRun)]
    ceiling, truths = _run_features(model, split, unsplit, feature_runs, pictures("features"))
    if not truths:
        raise SourceError(f"{dataset.name} holds no picture that can be read")
    for codec, run in runs.items():
        if isinstance(run, PixelRun):
            _run_pixels(run, unsplit, pictures(str(codec)), truths)
    return [
        make_record(None, dataset, ceiling, ceiling),
        *(make_record(codec, dataset, run.scores, ceiling) for codec, run in runs.items()),
    ]


def _run_features(
    model: Model,
    split: str,
    unsplit: Unsplit,
    runs: Sequence[FeatureRun],
    pictures: Iterable[LetterboxedPicture],
) -> tuple[Scores, list[Detections]]:
    """Score every run; returns the unsplit network's scores, and what it is confident of in each picture."""
    ceiling, truths = Scores(), []
    tail = Tail(model, split)
    heads: dict[tuple[int, int], Head] = {}  # by canvas: images differ in shape
    for picture in pictures:
        letterbox = picture.letterbox
        if letterbox.canvas not in heads:
            heads[letterbox.canvas] = Head(model, split, letterbox.canvas)
        head = heads[letterbox.canvas]
        clock = StageClock(time.monotonic_ns())
        prediction = unsplit(picture.canvas).cpu()
        clock.lap("unsplit", time.monotonic_ns())
        tensors = head(picture.canvas)
        clock.lap("head", time.monotonic_ns())
        ceiling.durations.add(clock.durations_ns)
        detections = scorable_detections(prediction, letterbox)
        truth = confident(detections)
        truths.append(truth)
        ceiling.add_frame(detections, truth, picture.labels)
        for run in runs:
            prediction = run.predict(tensors, head.layout, letterbox.frame, tail)
            run.scores.add_frame(scorable_detections(prediction, letterbox), truth, picture.labels)
    return ceiling, truths


def _run_pixels(
    run: PixelRun, unsplit: Unsplit, pictures: Iterable[LetterboxedPicture], truths: Sequence[Detections]
) -> None:
    """Score what the unsplit network finds in canvases after coding, against what it found before."""
    in_coder: deque[LetterboxedPicture] = deque()

    def canvases() -> Iterator[Canvas]:
        for picture in pictures:
            in_coder.append(picture)
            yield picture.canvas

    for canvas, truth in zip(run.decoded(canvases()), truths, strict=True):
        picture = in_coder.popleft()
        run.scores.add_frame(scorable_detections(unsplit(canvas), picture.letterbox), truth, picture.labels)


def _with_profile(codecs: Sequence[AnyCodec], model: Model, split: str, file: Path | None) -> list[AnyCodec]:
    """The codecs with the network's calibration profile where they need one, which is looked for once.

    Raises SettingsError or ProfileError.
    """

    def needs_profile(codec: AnyCodec) -> TypeGuard[Codec]:
        return (
            not isinstance(codec, PixelCodec)
            and codec.takes_profile
            and (file is not None or codec.profile_is_open)
        )

    uncalibrated = next(filter(needs_profile, codecs), None)
    if uncalibrated is None:
        if file is not None:
            raise SettingsError("--profile is for the feature codec, and none is to be measured")
        return list(codecs)
    profile = resolve(uncalibrated, model.weights_hash, split, file).profile
    return [codec.with_profile(profile) if needs_profile(codec) else codec for codec in codecs]


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
    codecs = parse_codecs(options.codec) if options.codec else standard_codecs(notices.print)
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
            of_source = evaluate(model, codecs, dataset, options.split, size, watch=watch)
        if of_source[0].map is not None:
            settings["labels"] = str(ClassMap(dataset.classes, model.names))
        print_summary(of_source, console)
        records += of_source
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
