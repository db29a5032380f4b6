"""Beyond the paper: what every split point costs, and which one is best for a link (Neurosurgeon's question)."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from matplotlib.axes import Axes

from codec.layout import raw_bytes
from codec.packet import Stamp
from codec.rle.codec import Rle
from services.evaluation.delay import LinkModel, Placement, delay_ms, ranked
from services.evaluation.placements import DETECTION_BYTES
from services.study.accuracy import main_score, rounded_scores
from services.study.draw import label, legend, panels, stamp
from services.study.record import RANDOM, StudyRecord, by_subject
from services.study.section import KIB, Claim, Drawing, Section, Table, kibibytes, percent
from services.study.study import Experiment, Study
from services.study.subject import SplitSample, Subject
from stream.latency import StageClock, StageDurations
from stream.network.cut import layout, live_set, points, split_points
from stream.network.graph import INPUT
from stream.torch_network.graph import ModuleGraph, run
from stream.torch_network.split import TorchTail

BITS = 4
PICTURES, QUICK_PICTURES = 16, 2
LINKS_MBPS = (1, 10, 100)
DETECTOR_SPEED = 10.0  # of the machine behind the link, against this one: a server's accelerator
GOOD = 0.95  # of the unsplit network's score, for a point to be recommended


def _measure(study: Study) -> None:
    study.for_each_subject(_measure_subject)


def _measure_subject(study: Study, subject: Subject) -> None:
    pictures = study.stills(subject)
    names = split_points(subject.graph)
    if study.quick:
        names = tuple(name for number, name in enumerate(names) if number % 6 == 5 or name == subject.split)
    missing = study.missing("split", subject, pictures, [{"point": name, "bits": BITS} for name in names])
    if not missing:
        return
    candidates = _Candidates(subject, [point["point"] for point in missing])
    times: dict[str, float] = {}
    work: dict[str, float] = {}
    for sample in study.samples(subject, pictures, QUICK_PICTURES if study.quick else PICTURES):
        if not times:
            times = node_times_ms(subject.graph, sample.picture, 2 if study.quick else 5)
            size = (sample.picture.shape[2], sample.picture.shape[3])
            work = {point.name: point.share for point in points(subject.graph, size)}
        candidates.add(sample)
    before = dict(zip(times, accumulate(times.values()), strict=True))
    total = sum(times.values())
    for point in missing:
        name = point["point"]
        values = {**candidates.values(name), "flops_share": round(work[name], 6)}
        times_ms = {"head": round(before[name], 4), "tail": round(total - before[name], 4)}
        study.write("split", subject, pictures, point, values=values, times_ms=times_ms)


def node_times_ms(graph: ModuleGraph, picture: torch.Tensor, rounds: int) -> dict[str, float]:
    """How long each node takes, in execution order: medians over traversals of the network."""
    durations = StageDurations()
    with torch.inference_mode():
        for number in range(rounds + 1):
            tensors = {INPUT: picture}
            clock = StageClock(time.monotonic_ns())
            for node in graph.nodes:
                tensors[node.name] = node(tensors)
                if picture.is_cuda:
                    torch.cuda.synchronize()
                clock.lap(node.name, time.monotonic_ns())
            if number:  # the first one warms up
                durations.add(clock.durations_ns)
    return durations.medians_ms()


class _Candidates:
    """Sizes and scores of split points of one network, gathered picture by picture."""

    def __init__(self, subject: Subject, names: Sequence[str]) -> None:
        self._subject = subject
        self._trained = subject.weights != RANDOM
        self._tails = {name: TorchTail(subject, name) for name in names}
        self._scorers = {name: subject.scorer() for name in names}
        self._whole = subject.scorer()
        self._sizes: dict[str, list[tuple[int, int]]] = {name: [] for name in names}

    def add(self, sample: SplitSample) -> None:
        """Cut the network at every point for one picture, and finish it on what a packet holds."""
        if self._trained:
            self._whole.add(sample, self._subject.finish(sample.tensors))
        size = (sample.picture.shape[2], sample.picture.shape[3])
        for name, tensors in self._crossing(sample).items():
            crossing = layout(self._subject.graph, name, size)
            arrays = {key: tensor[0].contiguous().numpy() for key, tensor in tensors.items()}
            packet = Rle(BITS).encoder(crossing).encode(arrays, Stamp(0, 0, 1, 1))
            self._sizes[name].append((raw_bytes(crossing), len(packet.data)))
            if self._trained:
                decoded = Rle(BITS).decoder(crossing).decode(packet.data)
                self._scorers[name].add(sample, self._tails[name](decoded.tensors))

    def _crossing(self, sample: SplitSample) -> dict[str, dict[str, torch.Tensor]]:
        """The tensors that cross at each point, from one run of the network."""
        graph = self._subject.graph
        crossing = {name: live_set(graph, name) for name in self._tails}
        needed = dict.fromkeys(tensor for names in crossing.values() for tensor in names)
        with torch.inference_mode():
            features = run(graph.nodes[:-1], {INPUT: sample.picture}, tuple(needed))
        return {
            name: {tensor: features[tensor].cpu() for tensor in names} for name, names in crossing.items()
        }

    def values(self, name: str) -> dict[str, Any]:
        """What a record of one point holds; with random weights the scores are empty."""
        raw, coded = map(statistics.fmean, zip(*self._sizes[name], strict=True))
        return {
            "raw_bytes": round(raw, 1),
            "bytes": round(coded, 1),
            "pictures": len(self._sizes[name]),
            "scores": rounded_scores(self._scorers[name]) if self._trained else {},
            "whole": rounded_scores(self._whole) if self._trained else {},
        }


class _SplitPoints:
    """The records of one network, in the order in which a picture passes its split points."""

    def __init__(self, group: Sequence[StudyRecord]) -> None:
        self.name = label(group[0])
        self._records = sorted(group, key=lambda record: (_head_ms(record), record.values["flops_share"]))
        self._score = main_score(self._records[0].values["whole"])
        self.names = [record.settings["point"] for record in self._records]
        totals = [_head_ms(record) + record.times_ms.get("tail", 0) for record in self._records]
        self.times = [
            _head_ms(record) / total if total else 0
            for record, total in zip(self._records, totals, strict=True)
        ]  # shares before the point
        self._alone_ms = totals[0]  # without any split

    def draw(self, size_axis: Axes, share_axis: Axes) -> None:
        """Sizes by split point, and the shares of time, arithmetic and accuracy."""
        for key, name in (("raw_bytes", "float32"), ("bytes", f"rle, {BITS} bits")):
            size_axis.plot(self.names, [record.values[key] / KIB for record in self._records], label=name)
        size_axis.set(ylabel="KiB a picture", yscale="log")
        work = [record.values["flops_share"] for record in self._records]
        share_axis.plot(self.names, self.times, label="time before the split")
        share_axis.plot(self.names, work, label="arithmetic before the split")
        kept = [share for record in self._records if (share := self._kept(record)) is not None]
        if kept:
            share_axis.plot(self.names, kept, label=f"accuracy kept at {BITS} bits")
        share_axis.set(ylabel="share", ylim=(0, 1.08))
        for axis in (size_axis, share_axis):
            axis.set(title=self.name, xlabel="split point")
            axis.set_xticks(range(0, len(self.names), max(len(self.names) // 16, 1)))
            axis.tick_params(axis="x", rotation=90, labelsize=7)
            legend(axis)

    def _kept(self, record: StudyRecord) -> float | None:
        """The share of the unsplit network's score that is left."""
        if self._score is None:
            return None
        return record.values["scores"][self._score] / (record.values["whole"][self._score] or 1)  # type: ignore[no-any-return] # of floats

    def rows(self) -> list[list[str]]:
        return [
            [
                f"{self.name}: {record.settings['point']}",
                f"{record.values['raw_bytes'] / KIB:.0f}",
                kibibytes(record.values["bytes"]),
                percent(time),
                percent(record.values["flops_share"]),
                f"{record.values['scores'][self._score]:.3f}" if self._score else "",
            ]
            for record, time in zip(self._records, self.times, strict=True)
        ]

    def best(self, mbps: float) -> tuple[str, float, float]:
        """Name and delay of the best point on a link, and the delay of no split at all, in ms."""
        link = LinkModel(1000 * mbps, detector_speed=DETECTOR_SPEED)
        choices = [
            Placement(
                record.settings["point"],
                "split",
                _head_ms(record),
                record.times_ms.get("tail", 0),
                record.values["bytes"],
                self._kept(record),
                point=record.settings["point"],
            )
            for record in self._records
        ]
        best = ranked(choices, link, agreement=GOOD)[0]
        alone = Placement("all here", "all here", self._alone_ms, 0, DETECTION_BYTES)
        return best.name, delay_ms(best, link), delay_ms(alone, link)

    def claim(self) -> Claim:
        best = {mbps: self.best(mbps)[0] for mbps in LINKS_MBPS}
        last = max(len(self.names) - 1, 1)
        late = [mbps for mbps, point in best.items() if self.names.index(point) / last >= 0.75]
        verdict = "agrees" if len(late) == len(best) else "agrees in part" if late else "does not agree"
        return Claim(
            "Neurosurgeon and JointDNN find that the last layers are the most suitable for splitting (section II).",
            f"{self.name}: the least delay is at "
            f"{', '.join(f'{point} at {mbps} Mbit/s' for mbps, point in best.items())}.",
            f"This {verdict}: of {len(best)} links the best point lies in the last quarter for {len(late)}.",
        )


def _head_ms(record: StudyRecord) -> float:
    return record.times_ms.get("head", 0)


def _present(records: Sequence[StudyRecord]) -> Section:
    networks = [_SplitPoints(group) for group in by_subject(records)]
    figure, axes = panels(2 * len(networks), width=5.2, height=3.4, columns=2)
    for number, network in enumerate(networks):
        network.draw(axes[2 * number], axes[2 * number + 1])
    links = []
    for network in networks:
        for mbps in LINKS_MBPS:
            point, delay, alone = network.best(mbps)
            links.append([network.name, f"{mbps}", point, f"{delay:.1f}", f"{alone:.1f}"])
    stamp(figure, records)
    return Section(
        title="Choice of the split point",
        paper="",
        method=(
            f"At every point the tensors that cross, as float32 and as one packet of the paper's code at {BITS} bits; "
            "the time before it, as the sum of medians of the network's nodes, one thread on this machine; and the "
            "accuracy of the network finished on what the packet holds, on at most "
            f"{PICTURES} pictures. Delay: camera, transfer, detector ({DETECTOR_SPEED:g} times as fast as this "
            f"machine), without coding times; a point counts if {GOOD:.0%} of the score are left."
        ),
        drawings=[
            Drawing(
                "split", figure, "Size (left), and time, arithmetic and accuracy (right), by split point."
            )
        ],
        tables=[
            Table(
                "The point of the least delay",
                ["network", "Mbit/s", "best", "delay ms", "all at the camera, ms"],
                links,
            ),
            Table(
                "Every split point",
                ["network: point", "float32 KiB", "coded KiB", "time before", "arithmetic before", "score"],
                [row for network in networks for row in network.rows()],
            ),
        ],
        claims=[network.claim() for network in networks],
    )


split = Experiment("split", "size, time and accuracy at every split point", _measure, _present)
