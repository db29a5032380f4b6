"""Beyond the paper: what every split point costs, and which one is best for a link (Neurosurgeon's question)."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch

from codec.layout import raw_bytes
from codec.packet import Stamp
from codec.rle.codec import Rle
from services.evaluation.advise import DETECTION_BYTES, node_times_ms
from services.evaluation.delay import LinkModel, Placement, delay_ms, ranked
from services.study.draw import label, legend, panels, stamp
from services.study.experiment import Experiment
from services.study.experiments.quantization import main_score
from services.study.record import RANDOM, Record, by_subject
from services.study.section import KB, Claim, Drawing, Section, Table, percent
from services.study.study import Study
from services.study.subject import Sample, Subject
from stream.network.cut import layout, live_set, points, split_points
from stream.network.graph import INPUT, run
from stream.network.split import Tail

BITS = 4
PICTURES, QUICK_PICTURES = 16, 2
LINKS_MBPS = (1, 10, 100)
DETECTOR_SPEED = 10.0  # of the machine behind the link, against this one: a server's accelerator
GOOD = 0.95  # of the unsplit network's score, for a point to be recommended


def _measure(study: Study) -> None:
    for subject in study.subjects:
        with study.refusing():
            source = study.stills(subject)
            names = split_points(subject.graph)
            if study.quick:
                names = tuple(
                    name for number, name in enumerate(names) if number % 6 == 5 or name == subject.split
                )
            missing = study.missing(
                "split", subject, source, [{"point": name, "bits": BITS} for name in names]
            )
            if missing:
                wanted = [one["point"] for one in missing]
                _measure_points(study, subject, source, wanted)


def _measure_points(study: Study, subject: Subject, source: Any, wanted: Sequence[str]) -> None:
    trained = subject.weights != RANDOM
    tails = {name: Tail(subject, name) for name in wanted}
    scorers = {name: subject.scorer() for name in wanted}
    whole = subject.scorer()
    sizes: dict[str, list[tuple[int, int]]] = {name: [] for name in wanted}
    times: dict[str, float] = {}
    size = (0, 0)
    for sample in study.samples(subject, source, QUICK_PICTURES if study.quick else PICTURES):
        if not times:
            times = node_times_ms(subject.graph, sample.picture, 2 if study.quick else 5)
            size = (sample.picture.shape[2], sample.picture.shape[3])
        if trained:
            whole.add(sample, subject.finish(sample.tensors))
        for name, tensors in _all_live(subject, sample, wanted).items():
            crossing = layout(subject.graph, name, (sample.picture.shape[2], sample.picture.shape[3]))
            arrays = {one: tensor[0].contiguous().numpy() for one, tensor in tensors.items()}
            packet = Rle(BITS).encoder(crossing).encode(arrays, Stamp(0, 0, 1, 1))
            sizes[name].append((raw_bytes(crossing), len(packet.data)))
            if trained:
                decoded = Rle(BITS).decoder(crossing).decode(packet.data)
                scorers[name].add(sample, tails[name](decoded.tensors))
    before = dict(zip(times, accumulate(times.values()), strict=True))
    work = {point.name: point.share for point in points(subject.graph, size)}
    total = sum(times.values())
    for name in wanted:
        raw, coded = map(statistics.fmean, zip(*sizes[name], strict=True))
        values = {
            "raw_bytes": round(raw, 1),
            "bytes": round(coded, 1),
            "flops_share": round(work[name], 6),
            "pictures": len(sizes[name]),
            "scores": _rounded(scorers[name].values()) if trained else {},
            "whole": _rounded(whole.values()) if trained else {},
        }
        spent = {"head": round(before[name], 4), "tail": round(total - before[name], 4)}
        study.write("split", subject, source, {"point": name, "bits": BITS}, values=values, times_ms=spent)


def _rounded(scores: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 6) for name, value in scores.items()}


def _all_live(subject: Subject, sample: Sample, wanted: Sequence[str]) -> dict[str, dict[str, torch.Tensor]]:
    """The tensors that cross at each point, from one run of the network."""
    crossing = {name: live_set(subject.graph, name) for name in wanted}
    needed = dict.fromkeys(tensor for names in crossing.values() for tensor in names)
    with torch.inference_mode():
        found = run(subject.graph.nodes[:-1], {INPUT: sample.picture}, tuple(needed))
    return {name: {tensor: found[tensor].cpu() for tensor in names} for name, names in crossing.items()}


def _present(records: Sequence[Record]) -> Section:
    groups = by_subject(records)
    figure, axes = panels(2 * len(groups), width=5.2, height=3.4, columns=2)
    rows, links, claims = [], [], []
    for number, group in enumerate(groups):
        order = sorted(group, key=lambda one: (one.times_ms.get("head", 0), one.values["flops_share"]))
        names = [one.settings["point"] for one in order]
        size_axis, time_axis = axes[2 * number], axes[2 * number + 1]
        size_axis.plot(names, [one.values["raw_bytes"] / KB for one in order], label="float32")
        size_axis.plot(names, [one.values["bytes"] / KB for one in order], label=f"rle, {BITS} bits")
        size_axis.set(title=label(group[0]), ylabel="kB a picture", yscale="log")
        totals = [one.times_ms.get("head", 0) + one.times_ms.get("tail", 0) for one in order]
        shares = [
            one.times_ms.get("head", 0) / total if total else 0
            for one, total in zip(order, totals, strict=True)
        ]
        time_axis.plot(names, shares, label="time before the split")
        time_axis.plot(
            names, [one.values["flops_share"] for one in order], label="arithmetic before the split"
        )
        time_axis.set(title=label(group[0]), ylabel="share", ylim=(0, 1.08))
        score = main_score(order[0].values["whole"])
        if score:
            kept = [one.values["scores"][score] / (one.values["whole"][score] or 1) for one in order]
            time_axis.plot(names, kept, label=f"accuracy kept at {BITS} bits")
        for axis in (size_axis, time_axis):
            axis.set_xticks(range(0, len(names), max(len(names) // 16, 1)))
            axis.tick_params(axis="x", rotation=90, labelsize=7)
            axis.set_xlabel("split point")
            legend(axis)
        for one, share in zip(order, shares, strict=True):
            told = f"{one.values['scores'][score]:.3f}" if score else ""
            rows.append(
                [
                    f"{label(one)}: {one.settings['point']}",
                    f"{one.values['raw_bytes'] / KB:.0f}",
                    f"{one.values['bytes'] / KB:.1f}",
                    percent(share),
                    percent(one.values["flops_share"]),
                    told,
                ]
            )
        best = {mbps: _best(order, score, mbps) for mbps in LINKS_MBPS}
        links += [[label(group[0]), f"{mbps}", *told] for mbps, told in best.items()]
        claims += _claim(label(group[0]), order, best)
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
                ["network: point", "float32 kB", "coded kB", "time before", "arithmetic before", "score"],
                rows,
            ),
        ],
        claims=claims,
    )


def _choices(order: Sequence[Record], score: str | None) -> list[Placement]:
    return [
        Placement(
            one.settings["point"],
            "split",
            one.times_ms.get("head", 0),
            one.times_ms.get("tail", 0),
            one.values["bytes"],
            one.values["scores"][score] / (one.values["whole"][score] or 1) if score else None,
            point=one.settings["point"],
        )
        for one in order
    ]


def _best(order: Sequence[Record], score: str | None, mbps: float) -> list[str]:
    """Name and delay of the best point on a link, and the delay of no split at all."""
    link = LinkModel(1000 * mbps, detector_speed=DETECTOR_SPEED)
    best = ranked(_choices(order, score), link, agreement=GOOD)[0]
    whole = order[0].times_ms.get("head", 0) + order[0].times_ms.get("tail", 0)
    alone = Placement("all here", "all here", whole, 0, DETECTION_BYTES)
    return [best.name, f"{delay_ms(best, link):.1f}", f"{delay_ms(alone, link):.1f}"]


def _claim(name: str, order: Sequence[Record], best: Mapping[int, Sequence[str]]) -> list[Claim]:
    places = {one.settings["point"]: number / max(len(order) - 1, 1) for number, one in enumerate(order)}
    chosen = {mbps: told[0] for mbps, told in best.items()}
    late = [mbps for mbps, point in chosen.items() if places[point] >= 0.75]
    told = ", ".join(f"{point} at {mbps} Mbit/s" for mbps, point in chosen.items())
    return [
        Claim(
            "Neurosurgeon and JointDNN find that the last layers are the most suitable for splitting (section II).",
            f"{name}: the least delay is at {told}.",
            f"This {'agrees' if len(late) == len(chosen) else 'agrees in part' if late else 'does not agree'}: of "
            f"{len(chosen)} links the best point lies in the last quarter for {len(late)}.",
        )
    ]


split = Experiment("split", "size, time and accuracy at every split point", _measure, _present)
