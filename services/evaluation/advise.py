"""`splitcast advise`: where to split a network for a link, and whether to split it at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from codec.feature.bundled import BUNDLED
from codec.feature.profile import Profile
from codec.rle.codec import Rle
from codec.spec import Codec, parse_codec
from services.evaluation.codec_sets import AnyCodec, parse_codecs
from services.evaluation.dataset import Dataset, read_clip, read_images, read_virtual
from services.evaluation.delay import LinkModel, Placement, delay_ms, frames_per_s, ranked, transfer_ms
from services.evaluation.evaluate import evaluate, tell
from services.evaluation.pixel_codecs import FORMATS, Canvas
from services.evaluation.placements import (
    AGREEMENT,
    CODED_SHARE,
    camera_placement,
    estimated_placements,
    pixel_placements,
    points_to_try,
    split_placements,
)
from services.evaluation.point_costs import PointCost, point_costs
from services.evaluation.settings import AdviseSettings
from services.loading import choose_engine, find_network
from services.profiles import read_profile
from services.settings import require_folder_of
from services.units import KB
from stream.atomic_file import write_whole
from stream.canvas import canvas_for, parse_size
from stream.errors import SourceError, UnknownSplitPoint
from stream.letterbox import Letterbox
from stream.network.engine import RunnableNetwork
from stream.network.names import DEFAULT_SPLIT
from stream.sources.virtual import is_virtual
from stream.sources.virtual_camera import VirtualCamera


def sentences(placements: Sequence[Placement], link: LinkModel, fps: float, measured_on: str) -> list[str]:
    """The recommendation in words, with its reason and what comes next; for placements as they are ranked."""
    first = placements[0]
    limits = {
        "camera": first.camera_ms,
        "link": transfer_ms(first, link) + link.rtt_ms / 2,
        "detector": first.detector_ms / link.detector_speed,
    }
    parts = ", ".join(f"{name} {value:.1f}" for name, value in limits.items())
    verdict = {"split": "Split", "pixels": "Send pixels", "all here": "Run it all at the camera"}[first.kind]
    lines = [
        f"{verdict}: {first.name}. A frame takes {delay_ms(first, link):.1f} ms ({parts}), "
        f"{first.bytes / KB:.1f} kB, and {frames_per_s(first, link):.1f} frames/s are sustained."
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
        for other in placements[1:4]
    ]
    lines.append(f"Measured on {measured_on}; take your own camera's pictures with --source.")
    return lines


def _why_not(placement: Placement, link: LinkModel, fps: float) -> str:
    if placement.agreement is not None and placement.agreement < AGREEMENT:
        return f", but its agreement is only {placement.agreement:.2f}"
    return f", fewer than the {fps:g} asked for" if frames_per_s(placement, link) < fps else ""


@dataclass(frozen=True, slots=True)
class Advice:
    """What was measured, and the placements as they are recommended."""

    link: LinkModel
    fps: float  # frames per second that are to be sustained, or 0
    costs: Sequence[PointCost]  # every split point in execution order
    coded: Mapping[str, Sequence[Placement]]  # by the split points at which codecs were tried
    ranked: Sequence[Placement]  # the one to take first
    measured_on: str  # in words

    def sentences(self) -> list[str]:
        """The recommendation in words."""
        return sentences(self.ranked, self.link, self.fps, self.measured_on)

    def as_json(self, model: Path, weights_hash: str) -> dict[str, Any]:
        """What `--json` writes."""
        return {
            "model": model.stem,
            "weights": weights_hash,
            "link": asdict(self.link),
            "frames": self.measured_on,
            "points": [asdict(cost) for cost in self.costs],
            "choices": [
                {
                    **asdict(placement),
                    "delay_ms": delay_ms(placement, self.link),
                    "frames_per_s": frames_per_s(placement, self.link),
                }
                for placement in self.ranked
            ],
            "advice": self.sentences(),
        }


def run_advise(settings: AdviseSettings) -> None:
    """Measure, print every split point and the recommendation, and write `--json` if it is given.

    Raises SettingsError, InvalidSize, ProfileError, ProfileMismatch, SourceError, UnknownSplitPoint, WeightsError or
    CheckpointError.
    """
    require_folder_of(settings.json_file, "--json")
    feature = parse_codec(settings.codec or "feature")
    trial = _Trial(
        feature,
        _profiles(settings.profile),
        with_rle=not settings.codec,
        required=settings.split,
        size=parse_size(settings.size),
    )
    link = LinkModel(settings.link_kbps, settings.rtt_ms, settings.detector_speed)
    dataset = _dataset(settings.source, settings.frames)
    engine, device = choose_engine(settings.engine, settings.device)
    network = find_network(settings.model, engine, device, settings.threads)
    tell(dataset.account, notices := Console(stderr=True, markup=False, emoji=False))
    with Progress(console=notices) as progress:
        advice = trial.advise(network, dataset, link, settings.fps, progress)
    console = Console(markup=False, emoji=False)
    console.print(_points_table(settings.model, advice))
    console.print(_placements_table(advice))
    for sentence in advice.sentences():
        console.print(sentence, highlight=False, soft_wrap=True)
    if settings.json_file:
        written = advice.as_json(Path(settings.model), network.weights_hash)
        write_whole(settings.json_file, json.dumps(written, indent=2) + "\n")


@dataclass(frozen=True, slots=True)
class _Trial:
    """Which codecs are tried, and where."""

    codec: Codec
    profiles: Mapping[str, Profile]  # by split point, for `codec`
    with_rle: bool  # the paper's codec at 4 bits beside it
    required: Sequence[str]  # the only split points to try, or none for the most promising
    size: int | tuple[int, int]  # as `canvas_for` takes it

    def advise(
        self, network: RunnableNetwork, dataset: Dataset, link: LinkModel, fps: float, progress: Progress
    ) -> Advice:
        """Measure everything on one dataset. Raises UnknownSplitPoint, SourceError or CodecError."""
        for point in (*self.required, *self.profiles):
            if point not in network.split_points:
                raise UnknownSplitPoint(point, network.split_points)
        pixels = _pixel_codecs()
        first = _first_canvas(dataset, self.size, network.stride)
        bar = progress.add_task("the network at every point", total=len(network.split_points))
        costs = point_costs(network, first, watch=lambda: progress.update(bar, advance=1))
        promising = points_to_try(estimated_placements(costs), link, self.required)
        points = list(dict.fromkeys([*promising, *self.profiles]))
        progress.reset(bar, total=dataset.expected * (len(points) + 1 + len(pixels)))

        def watch(what: str) -> Callable[[str], None]:
            return lambda _: progress.update(bar, advance=1, description=what)

        coded: dict[str, list[Placement]] = {}
        for point in points:
            codecs = self._codecs(network.weights_hash, point)
            records = evaluate(network, codecs, dataset, point, self.size, watch=watch(f"split at {point}"))
            coded[point] = split_placements(records, point)
        records = evaluate(network, pixels, dataset, points[0], self.size, watch=watch("pixels"))
        placements = [
            *chain.from_iterable(coded.values()),
            *pixel_placements(records),
            camera_placement(records[0].unsplit_ms or 0),
        ]
        measured_on = f"{records[0].frames} frames of {dataset.name}, {records[0].objects} objects"
        return Advice(link, fps, costs, coded, ranked(placements, link, fps, AGREEMENT), measured_on)

    def _codecs(self, weights_hash: str, point: str) -> list[AnyCodec]:
        codec = _with_profile(self.codec, self.profiles.get(point), weights_hash, point)
        return [Rle(4), codec] if self.with_rle else [codec]


def _dataset(source: str, frames: int) -> Dataset:
    if is_virtual(source):
        return read_virtual(VirtualCamera.parse(source), frames)
    path = Path(source)
    return read_images(path, max_frames=frames) if path.is_dir() else read_clip(path, max_frames=frames)


def _first_canvas(dataset: Dataset, size: int | tuple[int, int], stride: int) -> Canvas:
    first = next(iter(dataset.pictures), None)
    if first is None:
        raise SourceError(f"{dataset.name} holds no picture that can be read")
    frame = first.image.shape[0], first.image.shape[1]
    return Letterbox(frame, canvas_for(size, *frame, stride)).apply(first.image)


def _profiles(file: Path | None) -> dict[str, Profile]:
    """The profile of `--profile`, by the split point that it was made for."""
    if file is None:
        return {}
    profile = read_profile(file)
    return {str(profile.metadata.get("split", DEFAULT_SPLIT)): profile}


def _with_profile(codec: Codec, profile: Profile | None, weights_hash: str, point: str) -> Codec:
    """The feature codec with this profile for a point, else with the one bundled for it, else with none."""
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


def _points_table(model: str, advice: Advice) -> Table:
    table = Table(
        title=f"Split points of {Path(model).stem}",
        caption=f"~ guessed as {CODED_SHARE:.0%} of the float32 tensors; others were coded.",
    )
    for name in ("point", "head ms", "tail ms", "raw kB", "coded kB", "delay ms"):
        table.add_column(name, justify="left" if name == "point" else "right")
    for cost, estimate in zip(advice.costs, estimated_placements(advice.costs), strict=True):
        best = ranked(advice.coded.get(cost.point, [estimate]), advice.link, agreement=AGREEMENT)[0]
        mark = "~" if best.estimated else ""
        table.add_row(
            cost.point,
            f"{cost.head_ms:.1f}",
            f"{cost.tail_ms:.1f}",
            f"{cost.raw_bytes / KB:.0f}",
            f"{mark}{best.bytes / KB:.1f}",
            f"{mark}{delay_ms(best, advice.link):.1f}",
        )
    return table


def _placements_table(advice: Advice) -> Table:
    link = advice.link
    table = Table(
        title=f"At {link.kbps:g} kbit/s, a round trip of {link.rtt_ms:g} ms, a detector {link.detector_speed:g} times "
        "as fast",
        caption="kB: 1000 bytes. Times in ms; delay: of one frame, no queues. Agree: AP50-95 with the unsplit network.",
    )
    table.add_column("choice", min_width=22)
    for name in ("agree", "kB", "camera", "link", "detector", "delay", "frames/s"):
        table.add_column(name, justify="right")
    for placement in advice.ranked:
        rate = frames_per_s(placement, link)
        table.add_row(
            placement.name,
            "" if placement.agreement is None else f"{placement.agreement:.3f}",
            f"{placement.bytes / KB:.1f}",
            f"{placement.camera_ms:.1f}",
            f"{transfer_ms(placement, link) + link.rtt_ms / 2:.1f}",
            f"{placement.detector_ms / link.detector_speed:.1f}",
            f"{delay_ms(placement, link):.1f}",
            f"{rate:.1f}{' (too few)' if rate < advice.fps else ''}",
        )
    return table
