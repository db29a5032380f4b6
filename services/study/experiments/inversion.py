"""Beyond the paper: what a thief of the link could see, who trains a network to draw pictures from the features.

The thief has the camera's layers, whose weights are public, so that any pictures give features to train on; those that
are drawn in the end are others. One decoder is trained on features as they are, and a copy of it goes on with what
each codec leaves of them. Every picture is drawn from its own features alone.
"""

from __future__ import annotations

import base64
import io
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from matplotlib.figure import Figure
from PIL import Image

from codec.layout import Layout
from codec.spec import parse_codec
from services.errors import NotMeasurable
from services.evaluation.plot import style
from services.profiles import resolve
from services.study.accuracy import Change, rounded_scores, through, unchanged
from services.study.dataset import PictureSet, contents, folder_pictures
from services.study.draw import label
from services.study.likeness import SIDE, psnr, ssim
from services.study.picture_decoder import BATCH, PictureDecoder, TrainingPair, stacked
from services.study.record import Settings, StudyRecord, by_subject, rounded
from services.study.section import Claim, Drawing, Section, Table, kibibytes
from services.study.study import Experiment, Study
from services.study.subject import SplitSample, Subject, Tensors
from stream.sources.virtual_camera import FOLDER as PHOTOGRAPHS

ORIGINAL = "none"
CODECS = {
    "raw": "float32",
    "feature:quality=10": "feature, quality 10",
    "feature:quality=6": "feature, quality 6",
    "feature:quality=3": "feature, quality 3",
    "rle:bits=4": "rle, 4 bits",
}
QUICK_CODECS = ("raw", "feature:quality=3")
STEPS, QUICK_STEPS = (1000, 300), (4, 2)  # on features as they are, and then on those of each codec
EVERY = 6  # frame of a clip counts: those between show nearly the same
QUICK_PICTURES = 4
RECOGNIZED = 0.1  # agreement of the detector on drawn pictures from which on they are no secret

CLOSE = {"bus": (0.07, 0.35, 0.30), "zidane": (0.335, 0.235, 0.22)}
"""Faces in the photographs: left, top and side of a square, as shares of width, height and width."""
_WIDTH = 240  # of a photograph in a record, in pixels


def _measure(study: Study) -> None:
    study.for_each_subject(_measure_subject)


def _measure_subject(study: Study, subject: Subject) -> None:
    tested = _tested(study, subject)
    photographs = tested[0]
    steps = QUICK_STEPS if study.quick else STEPS
    told = {"trained_on": [pictures.name for pictures in study.training], "steps": list(steps)}
    points: dict[str, Settings] = {
        codec: {"codec": codec, **told} for codec in (QUICK_CODECS if study.quick else CODECS)
    }
    missing = {
        codec: point
        for codec, point in points.items()
        if any(study.missing("inversion", subject, pictures, [point]) for pictures in tested)
    }
    if not missing:
        return
    _write_originals(study, subject, photographs)
    thief = _Thief(study, subject, steps)
    for codec, point in missing.items():
        change = through(resolve(parse_codec(codec), subject.weights, subject.split))
        decoder = thief.decoder(change)
        for pictures in tested:
            attack = Attack(subject, decoder, change)
            drawn = ((attack.on(sample), sample) for sample in chosen(study, subject, pictures))
            kept = {"drawn": _kept(pictures, drawn)} if pictures is photographs else {}
            for _ in drawn:
                pass  # those that are not kept
            study.write("inversion", subject, pictures, point, values={**attack.values(), **kept})


def _tested(study: Study, subject: Subject) -> list[PictureSet]:
    """What is drawn: first the photographs that come with this software, so that a report shows nobody else's.

    Raises NotMeasurable, also where any of it would be trained on.
    """
    images = study.judged(subject)
    if "top1" in subject.scores:
        raise NotMeasurable(f"{subject.name} is a classifier: pictures are drawn from features of detectors")
    if not study.training:
        raise NotMeasurable(
            "inversion trains on other pictures than it draws: give folders of images or videos with --train"
        )
    tested = [folder_pictures(PHOTOGRAPHS), images, *study.clips]
    secret = {digest for pictures in tested for digest in contents(pictures.files)}
    for pictures in study.training:
        for file, digest in zip(pictures.files, contents(pictures.files), strict=True):
            if digest in secret:
                raise NotMeasurable(f"{file} is to be trained on and to be drawn: take it out of --train")
    return tested


def chosen(study: Study, subject: Subject, pictures: PictureSet) -> Iterator[SplitSample]:
    """Those of the pictures that count, as they cross the split."""
    is_clip = pictures.dataset is not None and pictures.dataset.kind == "clip"
    step = EVERY if is_clip else 1
    return islice(study.samples(subject, pictures), 0, QUICK_PICTURES * step if study.quick else None, step)


@dataclass(frozen=True, slots=True, eq=False)
class _Picture:
    """What a thief keeps of one picture."""

    tensors: Tensors
    layout: Layout
    picture: torch.Tensor  # uint8 (3, H, W)

    def example(self, change: Change) -> TrainingPair:
        return TrainingPair(stacked(change(self.tensors, self.layout)[0]).half(), self.picture)


class _Thief:
    """Pictures that were sent through a camera of the thief's own, and what was learned from them."""

    def __init__(self, study: Study, subject: Subject, steps: tuple[int, int]) -> None:
        self._subject, self._seed, self._more = subject, study.seed, steps[1]
        self._watch = lambda: study.watch(f"{subject.name} {subject.split}, training")
        self._pictures = [
            _Picture(sample.tensors, sample.layout, (sample.picture[0] * 255).round().byte().cpu())
            for pictures in study.training
            for sample in chosen(study, subject, pictures)
        ]
        examples = [picture.example(unchanged) for picture in self._pictures]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(study.seed)
            self._first = PictureDecoder(examples[0].features.shape[0], examples[0].stride)
        self._first.to(subject.device).learn(examples, steps[0], self._seed, self._watch)

    def decoder(self, change: Change) -> PictureDecoder:
        """A decoder for what a codec leaves of the features."""
        decoder = deepcopy(self._first)
        examples = [picture.example(change) for picture in self._pictures]
        decoder.learn(examples, self._more, self._seed, self._watch)
        return decoder


class Attack:
    """One decoder on what one codec leaves of pictures that it was not trained on."""

    def __init__(self, subject: Subject, decoder: PictureDecoder, change: Change) -> None:
        self._subject, self._decoder, self._change = subject, decoder, change
        self._likeness: dict[str, list[float]] = {"ssim": [], "psnr": [], "bytes": []}
        self._sent, self._seen = subject.scorer(), subject.scorer()

    def on(self, sample: SplitSample) -> torch.Tensor:
        """The picture (1, 3, H, W) that is drawn of a sample. Those that are too thin for SSIM do not count."""
        tensors, size = self._change(sample.tensors, sample.layout)
        drawn = self._decoder.draw(stacked(tensors))
        shown, true = drawn[..., *sample.shown], sample.picture[..., *sample.shown]
        if min(shown.shape[2:]) < SIDE:
            return drawn
        found = float(ssim(shown, true)), psnr(shown, true), size
        for values, value in zip(self._likeness.values(), found, strict=True):
            values.append(value)
        self._sent.add(sample, self._subject.finish(tensors))
        with torch.inference_mode():
            self._seen.add(sample, self._subject.graph.forward(drawn))
        return drawn

    def values(self) -> dict[str, Any]:
        """What a record holds: means over pictures, and the detector's scores. Raises NotMeasurable without any."""
        if not self._likeness["ssim"]:
            raise NotMeasurable(f"inversion: all pictures are narrower than {SIDE} pixels on their canvas")
        return {
            **{name: rounded(statistics.fmean(values)) for name, values in self._likeness.items()},
            "pictures": len(self._likeness["ssim"]),
            "sent": rounded_scores(self._sent),  # of the detector on the features that arrive
            "seen": rounded_scores(self._seen),  # of the detector on the pictures that are drawn
        }


def _write_originals(study: Study, subject: Subject, photographs: PictureSet) -> None:
    point = {"codec": ORIGINAL}
    if study.missing("inversion", subject, photographs, [point]):
        samples = [(sample.picture, sample) for sample in chosen(study, subject, photographs)]
        study.write("inversion", subject, photographs, point, values={"drawn": _kept(photographs, samples)})


def _kept(photographs: PictureSet, drawn: Iterable[tuple[torch.Tensor, SplitSample]]) -> dict[str, list[str]]:
    """By name of the photograph: all of it, and a face in it, as texts that a record can hold."""
    kept = {}
    for file, (picture, sample) in zip(photographs.files, drawn, strict=True):
        shown = picture[0][:, *sample.shown].permute(1, 2, 0).mul(255).round().byte().cpu().numpy()
        whole = Image.fromarray(shown)
        left, top, side = CLOSE[file.stem]
        corner, length = (round(left * whole.width), round(top * whole.height)), round(side * whole.width)
        close = whole.crop((*corner, corner[0] + length, corner[1] + length))
        small = whole.resize((_WIDTH, round(_WIDTH * whole.height / whole.width)), Image.Resampling.BOX)
        kept[file.stem] = [encoded(small), encoded(close)]
    return kept


def encoded(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "WEBP", quality=80)
    return base64.b64encode(file.getvalue()).decode()


def _image(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text)))


def _present(records: Sequence[StudyRecord]) -> Section:
    groups = by_subject(records)
    names = list(dict.fromkeys(label(group[0]) for group in groups))
    figure = _sheet(groups)
    return Section(
        title="What a thief of the link could see",
        paper="",
        method=(
            "A convolutional network draws pictures from what crosses the split. It is trained on other pictures "
            "(absolute error and SSIM) whose features are as they are, and goes on with those that each codec leaves; "
            "every picture is a keyframe and drawn by itself. SSIM (Wang et al., on brightness) and PSNR compare the "
            "drawn picture with the one that the head saw, without padding. The detector's agreement with what it "
            "finds in the picture itself: of features as they arrive, and of the whole network on the drawn picture. "
            f"Of clips every {EVERY}th frame. Shown are the photographs that come with this software."
        ),
        drawings=[Drawing("inversion", figure, "Photographs, and what is drawn from their features.", True)]
        if figure
        else [],
        tables=[
            Table(
                "How alike the drawn pictures are",
                [
                    "network: pictures, codec", "KiB a picture", "SSIM", "PSNR, dB", "agreement, features",
                    "agreement, drawn",
                ],
                [row for group in groups for row in _rows(group)],
            )
        ],
        claims=[_claim(name, [group for group in groups if label(group[0]) == name]) for name in names],
        notes=[
            "An attacker with more pictures, more time, an accelerator or a network that knows what pictures look like "
            "draws better ones, and frames of a still scene add up: none of this is measured.",
            *dict.fromkeys(_training(record) for record in records if record.settings["codec"] != ORIGINAL),
        ],
    )  # fmt: skip


def _training(record: StudyRecord) -> str:
    first, more = record.settings["steps"]
    return (
        f"{label(record)}: {first} steps on features as they are, {more} more for each codec, of {BATCH} cutouts each, "
        f"on {', '.join(record.settings['trained_on'])}."
    )


def _by_codec(group: Sequence[StudyRecord]) -> dict[str, Mapping[str, Any]]:
    found = {record.settings["codec"]: record.values for record in group}
    return {codec: found[codec] for codec in (ORIGINAL, *CODECS) if codec in found}


def _rows(group: Sequence[StudyRecord]) -> list[list[str]]:
    return [
        [
            f"{label(group[0])}: {group[0].source}, {CODECS[codec]}",
            kibibytes(values["bytes"]),
            f"{values['ssim']:.3f}",
            f"{values['psnr']:.1f}",
            *(
                f"{scores['agreement']:.3f}" if "agreement" in scores else ""
                for scores in (values["sent"], values["seen"])
            ),
        ]
        for codec, values in _by_codec(group).items()
        if codec != ORIGINAL
    ]


def _claim(name: str, groups: Sequence[Sequence[StudyRecord]]) -> Claim:
    """What the fewest bytes still give away, on the pictures where that is least."""
    rows = [
        (group[0].source, codec, values) for group in groups for codec, values in _by_codec(group).items()
    ]
    judged = [row for row in rows if "agreement" in row[2].get("seen", {})]
    told = "; ".join(
        f"{source}, {CODECS[codec]}: SSIM {values['ssim']:.2f}, agreement {values['seen']['agreement']:.2f}"
        for source, codec, values in judged
    )
    least = min((values["seen"]["agreement"] for _, _, values in judged), default=0.0)
    return Claim(
        "Transmitting intermediate tensors may protect the privacy of input data, with guarantees when techniques "
        "like differential privacy are used (section I).",
        f"{name}, drawn pictures: {told or 'the detector is certain of nothing in the pictures themselves'}.",
        "Without such techniques this does not agree: the detector finds things again in every kind of drawn picture."
        if least >= RECOGNIZED
        else "This attack does not settle it: a stronger one may.",
    )


def _sheet(groups: Sequence[Sequence[StudyRecord]]) -> Figure | None:
    """Photographs and faces in them line by line, codecs side by side; None where no record holds any."""
    lines = []
    for group in groups:
        drawn = {codec: values["drawn"] for codec, values in _by_codec(group).items() if "drawn" in values}
        lines += [
            {codec: _image(photographs[name][part]) for codec, photographs in drawn.items()}
            for name in drawn.get(ORIGINAL, {})
            for part in range(2)
        ]
    columns = list(dict.fromkeys(codec for line in lines for codec in line))
    if not columns:
        return None
    heights = [line[ORIGINAL].height / line[ORIGINAL].width for line in lines]
    side = 1.9  # inches that a picture is wide
    with style():
        figure = Figure(figsize=(side * len(columns), side * sum(heights) + 0.3))
        axes = figure.subplots(len(lines), len(columns), squeeze=False, height_ratios=heights)
    for line, row in zip(lines, axes, strict=True):
        for codec, axis in zip(columns, row, strict=True):
            axis.set_axis_off()
            if codec in line:
                axis.imshow(line[codec])
            if line is lines[0]:
                axis.set_title(CODECS.get(codec, "the picture itself"))
    return figure


inversion = Experiment("inversion", "pictures drawn back from the features", _measure, _present)
