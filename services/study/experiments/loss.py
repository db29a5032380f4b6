"""Beyond the paper: its stated future work, what transmission loss does to the accuracy.

On consecutive frames of a clip, the detector fills in what is lost from the frame before. Three kinds of loss:

packet: a frame is one packet, lost whole; the detector takes the tensors that it had last. Encoder and decoder are the
    real ones: after a loss a decoder of differences refuses packets until the keyframe that it asks for arrives, which
    the encoder makes two frames later (66 ms at 30 frames/s).
datagram: a packet of the paper's code is cut into datagrams of 1400 bytes, each with the number of its first
    coefficient; codewords have a fixed width, so that what arrives can be decoded.
row, channel: a share of each decoded tensor's rows or channels is lost, as if these were sent apart. The codec's own
    reference is taken to be whole, and what it would cost to send them apart is not counted.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from codec.errors import BitstreamError
from codec.interface import Decoder, Encoder
from codec.layout import FloatArray, Layout
from codec.packet import Stamp
from codec.rle.codec import Rle
from codec.rle.kernels import Levels
from codec.spec import Codec, parse_codec
from services.evaluation.plot import looks
from services.profiles import resolve
from services.study.accuracy import rounded_scores
from services.study.dataset import PictureSet
from services.study.draw import label, legend, panels
from services.study.levels import levels_of
from services.study.record import StudyRecord, by_subject
from services.study.section import Claim, Drawing, Section, Table, kibibytes
from services.study.study import Experiment, Study
from services.study.subject import Subject, Tensors

SHARES, QUICK_SHARES = (0.0, 0.01, 0.05, 0.1, 0.2, 0.5), (0.0, 0.1, 0.5)
ROUND_TRIP = 2  # frames from a lost packet to the keyframe that mends it
DATAGRAM_BYTES = 1400
PLACE_BYTES = 4  # in each datagram: the number of its first coefficient
BITS = 4
UNITS = ("packet", "datagram", "row", "channel")
CODECS = {"packet": ("rle", "rle temporal", "feature"), "datagram": ("rle",), "row": ("rle", "feature")}
CODECS["channel"] = CODECS["row"]
MOST_FRAMES = 60
BEARABLE = 0.05  # share of the agreement that may be lost where 10 % does not arrive


class LossyLink(Protocol):
    """A codec at both ends of a channel that loses something."""

    def send(self, tensors: Tensors, layout: Layout) -> tuple[Tensors, int]:
        """The tensors that the detector goes on with, and the bytes that were sent."""


class _Filled:
    """What the detector had for the frame before; zeros at first."""

    def __init__(self) -> None:
        self._before: dict[str, FloatArray] = {}

    def last(self, layout: Layout) -> Tensors:
        return self._before or {spec.name: np.zeros(spec.shape, np.float32) for spec in layout}

    def keep(self, tensors: Tensors) -> Tensors:
        self._before = dict(tensors)
        return tensors


class PacketLink:
    """Loses whole packets."""

    def __init__(self, codec: Codec, share: float, rng: np.random.Generator) -> None:
        self._codec, self._share, self._rng = codec, share, rng
        self._ends: tuple[Encoder, Decoder] | None = None
        self._filled = _Filled()
        self._sequence = 0
        self._keyframe_at: int | None = None

    def send(self, tensors: Tensors, layout: Layout) -> tuple[Tensors, int]:
        if self._ends is None:
            self._ends = self._codec.encoder(layout), self._codec.decoder(layout)
        encoder, decoder = self._ends
        number = self._sequence
        if self._keyframe_at is not None and number >= self._keyframe_at:
            encoder.force_keyframe()
            self._keyframe_at = None
        packet = encoder.encode(tensors, Stamp(number, 0, 1, 1))
        self._sequence += 1
        if self._rng.random() < self._share:
            # The receiver sees the gap with the next packet; it is booked here, and paid for by the round trip.
            self._ask(number)
            return self._filled.last(layout), len(packet.data)
        try:
            decoded = decoder.decode(packet.data).tensors
        except BitstreamError:
            self._ask(number)
            return self._filled.last(layout), len(packet.data)
        return self._filled.keep(decoded), len(packet.data)

    def _ask(self, number: int) -> None:
        if self._keyframe_at is None:
            self._keyframe_at = number + ROUND_TRIP


class DatagramLink:
    """Loses datagrams of the paper's code."""

    def __init__(self, share: float, rng: np.random.Generator) -> None:
        self._share, self._rng = share, rng
        self._filled = _Filled()

    def send(self, tensors: Tensors, layout: Layout) -> tuple[Tensors, int]:
        packet = Rle(BITS).encoder(layout).encode(tensors, Stamp(0, 0, 1, 1)).data
        decoded = Rle(BITS).decoder(layout).decode(packet).tensors
        before = self._filled.last(layout)
        levels = levels_of(tensors, BITS)
        filled, datagrams = {}, 0
        for name, tensor in decoded.items():
            starts = datagram_starts(levels[name].reshape(-1))
            datagrams += len(starts)
            lost = self._rng.random(len(starts)) < self._share
            gone = np.repeat(lost, np.diff([*starts, tensor.size])).reshape(tensor.shape)
            filled[name] = np.where(gone, before[name], tensor)
        return self._filled.keep(filled), len(packet) + PLACE_BYTES * datagrams


def datagram_starts(levels: Levels) -> list[int]:
    """Number of the first coefficient of each datagram that the codewords of levels (n,) fill."""
    words = (DATAGRAM_BYTES - PLACE_BYTES) * 8 // (BITS + 1)
    zero = levels == 0
    edges = np.flatnonzero(np.diff(np.concatenate(([False], zero, [False])).astype(np.int8)))
    position = np.arange(levels.size)
    # A codeword begins at every level that is not 0, and at every 2**b-th zero of a run.
    begins = np.repeat(edges[::2], edges[1::2] - edges[::2])
    first = ~zero
    first[zero] = (position[zero] - begins) % 2**BITS == 0
    return np.flatnonzero(first)[::words].tolist()  # type: ignore[no-any-return] # of integers


class PartLink:
    """Loses rows or channels of decoded tensors."""

    def __init__(self, codec: Codec, unit: str, share: float, rng: np.random.Generator) -> None:
        self._whole = PacketLink(codec, 0, rng)
        self._axis = {"channel": 0, "row": 1}[unit]
        self._share, self._rng = share, rng
        self._filled = _Filled()

    def send(self, tensors: Tensors, layout: Layout) -> tuple[Tensors, int]:
        decoded, size = self._whole.send(tensors, layout)
        before = self._filled.last(layout)
        filled = {}
        for name, tensor in decoded.items():
            shape = [1, 1, 1]
            shape[self._axis] = tensor.shape[self._axis]
            lost = self._rng.random(shape) < self._share
            filled[name] = np.where(lost, before[name], tensor)
        return self._filled.keep(filled), size


def _link(unit: str, codec: str, share: float, feature: Codec, rng: np.random.Generator) -> LossyLink:
    spec = {
        "rle": Rle(BITS),
        "rle temporal": Rle(BITS, temporal=True),
        "feature": feature,
    }[codec]
    if unit == "packet":
        return PacketLink(spec, share, rng)
    return DatagramLink(share, rng) if unit == "datagram" else PartLink(spec, unit, share, rng)


def _measure(study: Study) -> None:
    with study.refusing():
        study.clip()
        clip = study.clips[-1]  # the first should be nearly static, where loss shows least
        for subject in study.subjects:
            if "map" in subject.scores:
                with study.refusing():
                    study.judged(subject)
                    _measure_clip(study, subject, clip)


def _measure_clip(study: Study, subject: Subject, clip: PictureSet) -> None:
    shares = QUICK_SHARES if study.quick else SHARES
    points = [
        {"unit": unit, "codec": codec, "share": share}
        for unit in UNITS
        for codec in CODECS[unit]
        for share in shares
    ]
    missing = study.missing("loss", subject, clip, points)
    if not missing:
        return
    feature = resolve(parse_codec("feature"), subject.weights, subject.split)
    links = []
    for point in missing:
        unit, share = point["unit"], point["share"]
        # The same losses for all codecs: what differs between them is not chance.
        rng = np.random.default_rng((study.seed, UNITS.index(unit), round(1000 * share)))
        links.append(_link(unit, point["codec"], share, feature, rng))
    scorers = [subject.scorer() for _ in missing]
    sizes: list[list[int]] = [[] for _ in missing]
    for sample in study.samples(subject, clip, 12 if study.quick else MOST_FRAMES):
        for link, scorer, by_frame in zip(links, scorers, sizes, strict=True):
            tensors, size = link.send(sample.tensors, sample.layout)
            by_frame.append(size)
            scorer.add(sample, subject.finish(tensors))
    for point, scorer, by_frame in zip(missing, scorers, sizes, strict=True):
        mean = round(statistics.fmean(by_frame), 1)
        values = {"scores": rounded_scores(scorer), "bytes": mean, "frames": len(by_frame)}
        study.write("loss", subject, clip, point, values=values)


class _Agreement:
    """The records of one network, by unit, codec and share lost."""

    def __init__(self, group: Sequence[StudyRecord]) -> None:
        self.network, self.name = group[0].network, label(group[0])
        self._records = group
        self._scores: dict[tuple[str, str], dict[float, float]] = {}
        for record in group:
            if (score := record.values["scores"].get("agreement")) is not None:
                curve = self._scores.setdefault((record.settings["unit"], record.settings["codec"]), {})
                curve[record.settings["share"]] = score

    def curve(self, unit: str, codec: str) -> list[tuple[float, float]]:
        """Shares lost, and what is left of the agreement."""
        return sorted(self._scores.get((unit, codec), {}).items())

    def rows(self) -> list[list[str]]:
        rows = []
        for record in self._records:
            unit, codec, share = (record.settings[key] for key in ("unit", "codec", "share"))
            score = record.values["scores"].get("agreement")
            figures = ["" if score is None else f"{score:.3f}", kibibytes(record.values["bytes"])]
            rows.append([f"{self.name}, {record.source}", unit, codec, f"{share:.0%}", *figures])
        return rows

    def claims(self) -> list[Claim]:
        lost = {
            point: 1 - curve[0.1] / curve[0.0]
            for point, curve in self._scores.items()
            if 0.1 in curve and curve.get(0.0)
        }
        if not lost:
            return []
        shares = ", ".join(f"{unit}s of {codec} {share:.0%}" for (unit, codec), share in lost.items())
        worst = max(lost, key=lost.__getitem__)
        bearable = [f"{unit}s of {codec}" for (unit, codec), share in lost.items() if share <= BEARABLE]
        return [
            Claim(
                "As future work: the effect of transmission loss on the accuracy, for reliable or unreliable channels.",
                f"{self.name}, share of the agreement lost where 10 % does not arrive: {shares}.",
                f"An unreliable channel costs most for {worst[0]}s of {worst[1]}; at most 5 % are lost for "
                f"{', '.join(bearable) or 'none'}.",
            )
        ]


def _present(records: Sequence[StudyRecord]) -> Section:
    networks = [_Agreement(group) for group in by_subject(records)]
    figure, axes = panels(len(UNITS) * len(networks), width=4.2, columns=2)
    style = looks(CODECS["packet"])
    panel = iter(axes)
    for network in networks:
        for unit, axis in zip(UNITS, panel, strict=False):
            for codec in CODECS[unit]:
                if curve := network.curve(unit, codec):
                    axis.plot(*zip(*curve, strict=True), label=codec, **style[codec])
            axis.set(title=f"{network.network}: {unit}s lost", xlabel="share lost", ylabel="agreement")
            axis.set(ylim=(0, 1.02))
            legend(axis, loc="lower left")
    return Section(
        title="Transmission loss",
        paper="",
        method=(
            "Consecutive frames of a clip; agreement with what the unsplit network finds in the same frames. What is "
            "lost is filled in from the frame before. Packets: a frame is one packet; after a loss a decoder of "
            "differences waits for a keyframe, which comes two frames later. Datagrams: 1400 bytes of the paper's "
            "code, each with the number of its first coefficient. Rows and channels: as if sent apart, the codec's "
            f"own reference taken to be whole. rle at {BITS} bits, feature at quality 6."
        ),
        drawings=[Drawing("loss", figure, "Agreement against the share that is lost.")],
        tables=[
            Table(
                "Loss",
                ["network, clip", "lost", "codec", "share", "agreement", "KiB a frame"],
                [row for network in networks for row in network.rows()],
            )
        ],
        claims=[claim for network in networks for claim in network.claims()],
    )


loss = Experiment("loss", "what transmission loss does to the accuracy", _measure, _present)
