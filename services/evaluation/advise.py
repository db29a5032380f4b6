"""`splitcast advise`: where to split a network for a link, and whether to split it at all."""

from __future__ import annotations

import json
import statistics
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from codec.feature.bundled import BUNDLED
from codec.feature.profile import Profile
from codec.layout import raw_bytes
from codec.rle.codec import Rle
from codec.spec import Codec, parse_codec
from services.errors import SettingsError
from services.evaluation.dataset import Dataset, read_clip, read_images, read_virtual
from services.evaluation.delay import LinkModel, Placement, delay_ms, frames_per_s, ranked, transfer_ms
from services.evaluation.evaluate import AnyCodec, evaluate, parse_codecs
from services.evaluation.pixel_codecs import FORMATS
from services.evaluation.scores import EvaluationRecord
from services.loading import choose_device
from services.profiles import read_profile
from stream.errors import SourceError, UnknownSplitPoint
from stream.letterbox import Letterbox, canvas_for, parse_size
from stream.network.cut import layout, split_points
from stream.network.download import find_weights
from stream.network.graph import INPUT, Graph
from stream.network.model import Model, load_model
from stream.network.names import DEFAULT_SPLIT
from stream.network.split import picture_tensor
from stream.sources.virtual import is_virtual

AGREEMENT = 0.95  # AP50-95 with the unsplit network: choices are compared where they are about as good
DETECTION_BYTES = 600
"""Of the message that tells what was found, about: all that travels if all runs at the camera."""
ROUNDS = 5  # traversals of the network whose times count, after one to warm up
TRIED = 5  # split points, beside the default one, that the codecs are tried at
CODED_SHARE = 0.15
"""Of the float32 tensors that `rle:bits=4` takes, about, for points where nothing was tried."""


def node_times_ms(graph: Graph, picture: torch.Tensor, rounds: int = ROUNDS) -> dict[str, float]:
    """How long each node takes, in execution order: medians over traversals of the network."""
    times: dict[str, list[float]] = {node.name: [] for node in graph.nodes}
    with torch.inference_mode():
        for number in range(rounds + 1):
            tensors = {INPUT: picture}
            for node in graph.nodes:
                start_ns = time.perf_counter_ns()
                tensors[node.name] = node(tensors)
                if picture.is_cuda:
                    torch.cuda.synchronize()
                if number:  # the first one warms up
                    times[node.name].append((time.perf_counter_ns() - start_ns) / 1e6)
    return {name: statistics.median(found) for name, found in times.items()}


@dataclass(frozen=True, slots=True)
class PointCost:
    """What a split point costs, before any codec."""

    point: str
    head_ms: float
    tail_ms: float
    raw_bytes: int


def point_costs(model: Model, picture: torch.Tensor) -> list[PointCost]:
    """Every split point in execution order; the times of nodes are measured here and now."""
    times = node_times_ms(model.graph, picture)
    size = (picture.shape[2], picture.shape[3])
    before = dict(zip(times, accumulate(times.values()), strict=True))
    whole = sum(times.values())
    return [
        PointCost(point, before[point], whole - before[point], raw_bytes(layout(model.graph, point, size)))
        for point in split_points(model.graph)
    ]


def estimates(costs: Iterable[PointCost]) -> list[Placement]:
    """A choice for every point, with a guess of what a codec makes of its tensors."""
    return [
        Placement(
            f"split at {one.point}",
            "split",
            one.head_ms,
            one.tail_ms,
            CODED_SHARE * one.raw_bytes,
            point=one.point,
            estimated=True,
        )
        for one in costs
    ]


def worth_trying(guessed: Sequence[Placement], link: LinkModel, wanted: Sequence[str]) -> list[str]:
    """The points at which codecs are tried: those wanted, or the default and the best by their estimates."""
    if wanted:
        return list(dict.fromkeys(wanted))
    best = [choice.point for choice in ranked(guessed, link)[:TRIED]]
    known = [choice.point for choice in guessed]
    return list(dict.fromkeys([*(point for point in (DEFAULT_SPLIT,) if point in known), *best]))


def split_choices(records: Sequence[EvaluationRecord], point: str) -> list[Placement]:
    """Choices from the records of codecs of tensors at one point."""
    return [
        Placement(
            f"split at {point}, {_short(record)}",
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


def pixel_choices(records: Sequence[EvaluationRecord]) -> list[Placement]:
    """For each codec of pixels its cheapest setting that agrees well enough, or the best one if none does."""
    choices = []
    unsplit_ms = records[0].unsplit_ms or 0
    for codec in dict.fromkeys(record.codec for record in records if record.codec != "none"):
        found = [record for record in records if record.codec == codec]
        good = [record for record in found if (record.agreement or 0) >= AGREEMENT]
        best = (
            min(good, key=lambda record: record.kb_per_frame or 0)
            if good
            else max(found, key=lambda record: record.agreement or 0)
        )
        choices.append(
            Placement(
                f"send {'H.264' if codec == 'x264' else codec.upper()} ({_short(best)})",
                "pixels",
                best.encode_ms or 0,
                (best.decode_ms or 0) + unsplit_ms,
                1000 * (best.kb_per_frame or 0),
                best.agreement,
            )
        )
    return choices


def _short(record: EvaluationRecord) -> str:
    parameters = record.setting.split(",")
    if record.codec == "feature":
        calibrated = "" if "profile=none" not in parameters else ", uncalibrated"
        quality = next((one for one in parameters if one.startswith("quality=")), "")
        return f"feature:{quality}{calibrated}"
    return f"{record.codec}:{parameters[0]}"


def sentences(choices: Sequence[Placement], link: LinkModel, fps: float, measured_on: str) -> list[str]:
    """The recommendation in words, with its reason and what comes next; for choices as they are ranked."""
    first = choices[0]
    limits = {
        "camera": first.camera_ms,
        "link": transfer_ms(first, link) + link.rtt_ms / 2,
        "detector": first.detector_ms / link.detector_speed,
    }
    told = ", ".join(f"{name} {value:.1f}" for name, value in limits.items())
    what = {"split": "Split", "pixels": "Send pixels", "all here": "Run it all at the camera"}[first.kind]
    lines = [
        f"{what}: {first.name}. A frame takes {delay_ms(first, link):.1f} ms ({told}), "
        f"{first.bytes / 1000:.1f} kB, and {frames_per_s(first, link):.1f} frames/s are sustained."
    ]
    if first.agreement is not None and first.agreement < AGREEMENT:
        lines.append(
            f"Its agreement is {first.agreement:.2f}, below {AGREEMENT:.2f}; nothing that was tried does better."
        )
    if fps and frames_per_s(first, link) < fps:
        lines.append(f"Nothing that was tried sustains {fps:g} frames/s.")
    lines += [
        f"Next, {other.name}: {delay_ms(other, link):.1f} ms, {frames_per_s(other, link):.1f} frames/s"
        f"{_why_not(other, link, fps)}."
        for other in choices[1:4]
    ]
    lines.append(f"Measured on {measured_on}; take your own camera's pictures with --source.")
    return lines


def _why_not(choice: Placement, link: LinkModel, fps: float) -> str:
    if choice.agreement is not None and choice.agreement < AGREEMENT:
        return f", but its agreement is only {choice.agreement:.2f}"
    return f", fewer than the {fps:g} asked for" if frames_per_s(choice, link) < fps else ""


def run_advise(options: Namespace) -> None:
    """Measure, print every split point and the recommendation, and write `--json` if it is given.

    Raises SettingsError, InvalidSize, ProfileError, ProfileMismatch, SourceError, UnknownSplitPoint, WeightsError or
    CheckpointError.
    """
    _check(options)
    codec = parse_codec(options.codec) if options.codec else parse_codec("feature")
    profiles = _profiles(codec, options.profile)
    wanted = [*(options.split or ()), *profiles]
    link = LinkModel(options.link_kbps, options.rtt_ms, options.detector_speed)
    size = parse_size(options.size)
    dataset = _dataset(options.source, options.frames)
    torch.set_num_threads(options.threads)
    model = load_model(find_weights(options.model), choose_device(options.device))
    for point in wanted:
        if point not in split_points(model.graph):
            raise UnknownSplitPoint(point, split_points(model.graph))
    pixels = _pixel_codecs()
    console = Console(stderr=True)
    with Progress(console=console) as progress:
        bar = progress.add_task("the network's nodes", total=None)
        costs = point_costs(model, _first_picture(dataset, size, model))
        points = list(dict.fromkeys([*worth_trying(estimates(costs), link, options.split or ()), *wanted]))
        progress.update(bar, total=len(points) * dataset.expected + dataset.expected * (1 + len(pixels)))

        def watch(what: str) -> Callable[[str], None]:
            return lambda _: progress.update(bar, advance=1, description=what)

        coded: dict[str, list[Placement]] = {}
        for point in points:
            codecs: list[AnyCodec] = [] if options.codec else [Rle(4)]
            codecs.append(_with_profile(codec, profiles.get(point), model.weights_hash, point))
            records = evaluate(model, codecs, dataset, point, size, watch=watch(f"split at {point}"))
            coded[point] = split_choices(records, point)
        records = evaluate(model, pixels, dataset, points[0], size, watch=watch("pixels"))
    unsplit_ms = records[0].unsplit_ms or 0
    everything = Placement(
        "all at the camera, only detections travel", "all here", unsplit_ms, 0, DETECTION_BYTES
    )
    measured = (
        [choice for found in coded.values() for choice in found] + pixel_choices(records) + [everything]
    )
    order = ranked(measured, link, options.fps, AGREEMENT)
    frames = f"{records[0].frames} frames of {dataset.name}, {records[0].objects} objects"
    words = sentences(order, link, options.fps, frames)
    printed = Console()
    printed.print(_points_table(options.model, costs, coded, link))
    printed.print(_choices_table(order, link, options))
    for line in words:
        printed.print(line, highlight=False, soft_wrap=True)
    if options.json:
        options.json.write_text(
            json.dumps(
                {
                    "model": Path(options.model).stem,
                    "weights": model.weights_hash,
                    "link": asdict(link),
                    "frames": frames,
                    "points": [asdict(cost) for cost in costs],
                    "choices": [
                        {
                            **asdict(choice),
                            "delay_ms": delay_ms(choice, link),
                            "frames_per_s": frames_per_s(choice, link),
                        }
                        for choice in order
                    ],
                    "advice": words,
                },
                indent=2,
            )
            + "\n"
        )


def _check(options: Namespace) -> None:
    if not 0 < options.link_kbps < float("inf"):
        raise SettingsError("--link-kbps takes a number above 0, in kbit/s")
    if not (0 <= options.rtt_ms < float("inf") and 0 <= options.fps < float("inf")):
        raise SettingsError("--rtt-ms and --fps take numbers from 0")
    if not 0 < options.detector_speed < float("inf"):
        raise SettingsError(
            "--detector-speed takes a number above 0: 4 for a detector four times as fast as this"
        )
    if min(options.frames, options.threads) < 1:
        raise SettingsError("--frames and --threads take numbers from 1")
    if options.json and not options.json.absolute().parent.is_dir():
        raise SettingsError(f"there is no folder {options.json.parent} to write {options.json.name} to")


def _dataset(source: str, frames: int) -> Dataset:
    if is_virtual(source):
        return read_virtual(source, frames)
    path = Path(source)
    return read_images(path, max_frames=frames) if path.is_dir() else read_clip(path, max_frames=frames)


def _first_picture(dataset: Dataset, size: int | tuple[int, int], model: Model) -> torch.Tensor:
    first = next(iter(dataset.pictures), None)
    if first is None:
        raise SourceError(f"{dataset.name} holds no picture that can be read")
    frame = first.image.shape[0], first.image.shape[1]
    return picture_tensor(Letterbox(frame, canvas_for(size, *frame)).apply(first.image), model.device)


def _profiles(codec: Codec, file: Path | None) -> dict[str, Profile]:
    """The profile of `--profile`, by the split point that it was made for."""
    if file is None:
        return {}
    if not codec.takes_profile:
        raise SettingsError(f"--profile is for the feature codec, not for {codec.name}")
    profile = read_profile(file)
    return {str(profile.metadata.get("split", DEFAULT_SPLIT)): profile}


def _with_profile(codec: Codec, profile: Profile | None, weights_hash: str, point: str) -> Codec:
    """The feature codec with this profile for a point, else with the one shipped for it, else with none."""
    if not codec.takes_profile or (profile is None and not codec.profile_is_open):
        return codec
    return codec.with_profile(profile or BUNDLED.find(weights_hash, point))


def _pixel_codecs() -> list[AnyCodec]:
    """H.264 and JPEG at their standard settings, as far as the installed builds have them."""
    return [
        codec
        for name in ("x264", "jpeg")
        if FORMATS[name].missing() is None
        for codec in parse_codecs([name])
    ]


def _points_table(
    model: str, costs: Sequence[PointCost], coded: Mapping[str, Sequence[Placement]], link: LinkModel
) -> Table:
    table = Table(
        title=f"Split points of {Path(model).stem}",
        caption=f"~ guessed as {CODED_SHARE:.0%} of the float32 tensors; others were coded.",
    )
    for name in ("point", "head ms", "tail ms", "raw kB", "coded kB", "delay ms"):
        table.add_column(name, justify="left" if name == "point" else "right")
    for cost, guess in zip(costs, estimates(costs), strict=True):
        best = ranked(coded.get(cost.point, [guess]), link, agreement=AGREEMENT)[0]
        mark = "~" if best.estimated else ""
        table.add_row(
            cost.point,
            f"{cost.head_ms:.1f}",
            f"{cost.tail_ms:.1f}",
            f"{cost.raw_bytes / 1000:.0f}",
            f"{mark}{best.bytes / 1000:.1f}",
            f"{mark}{delay_ms(best, link):.1f}",
        )
    return table


def _choices_table(choices: Sequence[Placement], link: LinkModel, options: Namespace) -> Table:
    table = Table(
        title=f"At {link.kbps:g} kbit/s, a round trip of {link.rtt_ms:g} ms, a detector {link.detector_speed:g} times "
        "as fast",
        caption="kB: 1000 bytes. Times in ms; delay: of one frame, no queues. Agree: AP50-95 with the unsplit network.",
    )
    table.add_column("choice", min_width=22)
    for name in ("agree", "kB", "camera", "link", "detector", "delay", "frames/s"):
        table.add_column(name, justify="right")
    for choice in choices:
        rate = frames_per_s(choice, link)
        table.add_row(
            choice.name,
            "" if choice.agreement is None else f"{choice.agreement:.3f}",
            f"{choice.bytes / 1000:.1f}",
            f"{choice.camera_ms:.1f}",
            f"{transfer_ms(choice, link) + link.rtt_ms / 2:.1f}",
            f"{choice.detector_ms / link.detector_speed:.1f}",
            f"{delay_ms(choice, link):.1f}",
            f"{rate:.1f}{' (too few)' if rate < options.fps else ''}",
        )
    return table
