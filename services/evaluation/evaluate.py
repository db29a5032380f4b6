"""What a codec costs in bytes and in detections, against the same network unsplit on the same pictures."""

from __future__ import annotations

import json
import platform
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from itertools import compress
from pathlib import Path
from typing import Any, TypeGuard

from rich.console import Console
from rich.progress import Progress

from codec.spec import Codec
from services.evaluation.agreement import confident
from services.evaluation.codec_sets import AnyCodec, parse_codecs, parse_reference, standard_codecs
from services.evaluation.dataset import Dataset, LetterboxedPicture, letterboxed
from services.evaluation.distortion import ScoredAnchors, distortion
from services.evaluation.feedback import Feedback
from services.evaluation.intervals import RateComparison, rates_against
from services.evaluation.labels import ClassMap
from services.evaluation.pixel_codecs import Canvas, PixelCodec
from services.evaluation.report import report
from services.evaluation.runs import FeatureRun, PixelRun, scorable_detections
from services.evaluation.scores import EvaluationRecord, Measured, Scores, make_record
from services.evaluation.settings import REPEAT, EvaluateSettings
from services.evaluation.sources import open_sources
from services.evaluation.summary import print_summary
from services.loading import choose_engine, find_network
from services.profiles import resolve
from services.settings import require_folder_of
from stream.atomic_file import write_whole
from stream.canvas import parse_size
from stream.detections import Detections
from stream.errors import SourceError
from stream.latency import StageClock
from stream.letterbox import Letterbox
from stream.network.engine import EngineName, Head, RunnableNetwork
from stream.network.levels import Levels, Logits
from stream.network.names import DEFAULT_SPLIT


def evaluate(
    network: RunnableNetwork,
    codecs: Sequence[AnyCodec],
    dataset: Dataset,
    split: str = DEFAULT_SPLIT,
    size: int | tuple[int, int] = 640,
    *,
    watch: Callable[[str], None] = lambda what: None,
) -> list[EvaluationRecord]:
    """A record of the unsplit network and one of every codec, all on the same frames, as `measure` takes them."""
    measured = measure(network, codecs, dataset, split, size, watch=watch)
    return make_records(dataset, measured)


def make_records(dataset: Dataset, measured: Sequence[Measured]) -> list[EvaluationRecord]:
    """The records of a source, of which the network unsplit was measured first."""
    return [make_record(each, dataset, measured[0].scores) for each in measured]


def measure(
    network: RunnableNetwork,
    codecs: Sequence[AnyCodec],
    dataset: Dataset,
    split: str = DEFAULT_SPLIT,
    size: int | tuple[int, int] = 640,
    *,
    feedback: Feedback | None = None,
    watch: Callable[[str], None] = lambda what: None,
) -> list[Measured]:
    """Scores of the unsplit network and of every codec, all on the same frames.

    The dataset is read once for the network and all codecs of tensors, which share the head's, and once more for
    each codec of pixels, whose canvases the unsplit network then sees. Holds one frame at a time, and those that an
    encoder looks ahead. `size` is what `canvas_for` takes. `feedback` gives encoders step maps, where they take them.
    `watch` is told what runs, once a picture.
    Raises SourceError, InvalidSize, UnknownSplitPoint or CodecError.
    """
    classes = ClassMap(dataset.classes, network.names)
    halves = _Halves(network, split)
    runs = {
        codec: PixelRun(codec) if isinstance(codec, PixelCodec) else FeatureRun(codec, feedback)
        for codec in codecs
    }

    def pictures(passing: str) -> Iterator[LetterboxedPicture]:
        for picture in letterboxed(dataset, classes, size, network.stride):
            watch(passing)
            yield picture

    feature_runs = [run for run in runs.values() if isinstance(run, FeatureRun)]
    ceiling, truths = _run_features(halves, feature_runs, pictures("features"))
    if not truths:
        raise SourceError(f"{dataset.name} holds no picture that can be read")
    for codec, run in runs.items():
        if isinstance(run, PixelRun):
            _run_pixels(run, halves, pictures(str(codec)), truths)
    return [Measured(None, ceiling), *(Measured(codec, run.scores) for codec, run in runs.items())]


class _Halves:
    """The network's halves, of which the head follows the canvas: images differ in shape."""

    def __init__(self, network: RunnableNetwork, split: str) -> None:
        """Raises UnknownSplitPoint."""
        self.tail, self.levels = network.tail(split), network.levels
        self._network, self._split = network, split
        self._heads: dict[tuple[int, int], Head] = {}

    def head(self, canvas: tuple[int, int]) -> Head:
        """The head for canvases of (H, W) pixels. Raises InvalidSize."""
        if canvas not in self._heads:
            first = next(iter(self._heads.values()), None)
            made = first.resized(canvas) if first else self._network.head(self._split, canvas)
            self._heads[canvas] = made
        return self._heads[canvas]

    def logits(self, canvas: Canvas) -> Logits:
        """The network's where nothing is coded between its halves."""
        (logits,) = self.tail([self.head((canvas.shape[0], canvas.shape[1]))(canvas)])
        return logits


@dataclass(frozen=True, slots=True, eq=False)
class _Truth:
    """What the unsplit network sees in a picture, which is what a codec is judged by."""

    confident: Detections
    anchors: ScoredAnchors

    @classmethod
    def of(cls, logits: Logits, levels: Levels, letterbox: Letterbox) -> _Truth:
        return cls(
            confident(scorable_detections(logits, levels, letterbox)), ScoredAnchors.of(logits, levels)
        )

    def judge(self, scores: Scores, logits: Logits, levels: Levels, picture: LetterboxedPicture) -> None:
        """Add to the scores what has become of the picture."""
        detections = scorable_detections(logits, levels, picture.letterbox)
        scores.add_frame(detections, self.confident, picture.labels)
        scores.add_distortion(distortion(self.anchors, logits, levels), len(self.anchors), picture.sequence)


def _run_features(
    halves: _Halves, runs: Sequence[FeatureRun], pictures: Iterable[LetterboxedPicture]
) -> tuple[Scores, list[_Truth]]:
    """Score every run; returns the unsplit network's scores, and what it sees in each picture."""
    ceiling, truths, levels = Scores(), list[_Truth](), halves.levels
    clean: Canvas | None = None
    for picture in pictures:
        letterbox = picture.letterbox
        head = halves.head(letterbox.canvas)
        clock = StageClock(time.monotonic_ns())
        tensors = head(picture.canvas)
        clock.lap("head", time.monotonic_ns())
        (logits,) = halves.tail([tensors])
        clock.lap("tail", time.monotonic_ns())
        took_ns = clock.durations_ns
        ceiling.durations.add({"head": took_ns["head"], "unsplit": took_ns["head"] + took_ns["tail"]})
        if picture.clean is picture.canvas:
            truth = _Truth.of(logits, levels, letterbox)
        elif picture.clean is not clean:
            truth = _Truth.of(halves.logits(picture.clean), levels, letterbox)
        clean = picture.clean
        truths.append(truth)
        truth.judge(ceiling, logits, levels, picture)
        for run in runs:
            logits = run.logits(tensors, head.layout, letterbox.frame, halves.tail, picture.sequence)
            truth.judge(run.scores, logits, levels, picture)
    return ceiling, truths


def _run_pixels(
    run: PixelRun, halves: _Halves, pictures: Iterable[LetterboxedPicture], truths: Sequence[_Truth]
) -> None:
    """Score what the unsplit network sees in canvases after coding, against what it saw before."""
    in_coder: deque[LetterboxedPicture] = deque()

    def canvases() -> Iterator[tuple[int, Canvas]]:
        for picture in pictures:
            in_coder.append(picture)
            yield picture.sequence, picture.canvas

    for canvas, truth in zip(run.decoded(canvases()), truths, strict=True):
        truth.judge(run.scores, halves.logits(canvas), halves.levels, in_coder.popleft())


def _with_profile(
    codecs: Sequence[AnyCodec], weights_hash: str, split: str, file: Path | None
) -> list[AnyCodec]:
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
        return list(codecs)
    profile = resolve(uncalibrated, weights_hash, split, file).profile
    return [codec.with_profile(profile) if needs_profile(codec) else codec for codec in codecs]


def run_evaluate(settings: EvaluateSettings) -> None:
    """Evaluate on all given sources, print what came of each, and write `--json` and `--html` if they are given.

    The files are written after every source, so that what is measured is not lost.
    Raises SettingsError, BadCodecSpec, InvalidSize, SourceError, UnknownSplitPoint, ProfileError, WeightsError or
    CheckpointError.
    """
    require_folder_of(settings.json_file, "--json")
    require_folder_of(settings.html, "--html")
    console, notices = Console(markup=False, emoji=False), Console(stderr=True, markup=False, emoji=False)
    codecs = parse_codecs(settings.codec) if settings.codec else standard_codecs(notices.print)
    reference = parse_reference(settings.against, codecs) if settings.against else []
    codecs = list(dict.fromkeys([*codecs, *reference]))
    is_reference = [codec in reference for codec in codecs]
    size = parse_size(settings.size)
    sources = open_sources(settings)
    engine, device = choose_engine(settings.engine, settings.device)
    network = find_network(settings.model, engine, device, settings.threads)
    codecs = _with_profile(codecs, network.weights_hash, settings.split, settings.profile)
    feedback = _feedback(settings, device)
    provenance = _provenance(settings, network.weights_hash, engine, device)
    records: list[EvaluationRecord] = []
    rates: dict[str, list[RateComparison]] = {}
    for dataset in sources:
        tell(dataset.account, notices)
        if dataset.files:
            provenance["left_out"] = len(dataset.files.left_out)
        with _progress(dataset, codecs, notices) as watch:
            unsplit, *coded = measure(
                network, codecs, dataset, settings.split, size, feedback=feedback, watch=watch
            )
        of_source = make_records(dataset, [unsplit, *coded])
        rates[of_source[0].source] = of_rates = rates_against(
            settings.against or "",
            list(compress(coded, is_reference)),
            [each for each, is_other in zip(coded, is_reference, strict=True) if not is_other],
        )
        if of_source[0].map is not None:
            provenance["labels"] = str(ClassMap(dataset.classes, network.names))
        print_summary(of_source, of_rates, console)
        if settings.against and not of_rates:
            console.print(
                f"No ratio to {settings.against}: no other codec reaches the quality of one of its settings. "
                "Give more settings.",
                highlight=False,
                soft_wrap=True,
            )
        records += of_source
        if settings.json_file:
            write_whole(settings.json_file, as_json(provenance, records, rates))
        if settings.html:
            write_whole(settings.html, report(provenance, records, rates))


def _feedback(settings: EvaluateSettings, device: str) -> Feedback | None:
    """A detector's step maps, if they are asked for. Raises SettingsError, WeightsError or CheckpointError."""
    if settings.feedback is None:
        return None
    from services.torch_loading import step_mappers

    mappers = step_mappers(settings.model, device, settings.threads)
    return Feedback(settings.feedback, settings.feedback_lag, partial(mappers, settings.split))


def as_json(
    provenance: Mapping[str, Any],
    records: Sequence[EvaluationRecord],
    rates: Mapping[str, Sequence[RateComparison]],
) -> str:
    """One object, in which every record has a line: lists of frames would fill thousands."""
    ratios = {source: [asdict(each) for each in of_source] for source, of_source in rates.items()}
    provenance = {**provenance, "ratios": ratios}
    head = json.dumps({**provenance, "records": []}, indent=2).removesuffix("]\n}")
    return head + "\n" + ",\n".join(json.dumps(asdict(record)) for record in records) + "\n]}\n"


def tell(account: str, console: Console) -> None:
    """Print a line about images that were left out, if there is one."""
    if account:
        console.print(account, style="yellow", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _progress(
    dataset: Dataset, codecs: Sequence[AnyCodec], console: Console
) -> Iterator[Callable[[str], None]]:
    """A bar that tells what runs, to be told once a picture."""
    passes = 1 + sum(isinstance(codec, PixelCodec) for codec in codecs)
    with Progress(console=console) as progress:
        bar = progress.add_task(dataset.name, total=dataset.expected * passes or None)
        yield lambda what: progress.update(bar, advance=1, description=f"{dataset.name}: {what}")


def _provenance(
    settings: EvaluateSettings, weights_hash: str, engine: EngineName, device: str
) -> dict[str, Any]:
    """What the records were made with, for whoever wants to make them again."""
    return {
        "model": Path(settings.model).stem,
        "weights": weights_hash,
        "split": settings.split,
        "size": settings.size,
        "every": settings.every,
        "max_frames": settings.max_frames,
        "noise": settings.noise,
        "repeat": None if settings.noise is None else settings.repeat or REPEAT,
        "feedback": settings.feedback,
        "feedback_lag": None if settings.feedback is None else settings.feedback_lag,
        "threads": settings.threads,
        "engine": engine,
        "device": device,
        "machine": platform.processor() or platform.machine(),
        "versions": {name: version(name) for name in ("splitcast", engine, "av", "pillow")},
    }
