"""Pictures drawn back from features: what is trained on and drawn, what a record holds, and what is told of it."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from services.errors import NotMeasurable
from services.study.accuracy import unchanged
from services.study.dataset import clip_pictures, folder_pictures
from services.study.experiments.inversion import (
    CODECS,
    EVERY,
    ORIGINAL,
    PHOTOGRAPHS,
    QUICK_CODECS,
    Attack,
    chosen,
    encoded,
    inversion,
)
from services.study.picture_decoder import PictureDecoder
from services.study.record import RANDOM, StudyRecord
from tests.services.study.records import StudyFactory, record


@pytest.fixture
def training(other_pictures: Path) -> dict[str, Any]:
    return {"training": [folder_pictures(other_pictures)], "quick": True}


def test_records_hold_the_likeness_and_the_photographs_alone(
    make_study: StudyFactory, training: dict[str, Any]
) -> None:
    study = make_study(**training)
    before = torch.random.get_rng_state()
    inversion.measure(study)
    assert torch.equal(torch.random.get_rng_state(), before), "other experiments' randomness is their own"
    records = study.book.of("inversion")
    originals, *attacks = records
    assert originals.settings == {"codec": ORIGINAL}
    assert [one.settings["codec"] for one in attacks[:3]] == [QUICK_CODECS[0]] * 3
    assert [one.source for one in attacks[:3]] == [
        "photographs",
        study.images.name.split()[0],
        study.clips[0].name.split()[0],
    ]
    assert {tuple(one.settings["trained_on"]) for one in attacks} == {(study.training[0].name,)}
    for one in attacks:
        assert -1 <= one.values["ssim"] <= 1
        assert 0 < one.values["psnr"] <= 100
        assert ("drawn" in one.values) == (one.source == "photographs"), "nobody else's pictures are kept"
    coded = {one.settings["codec"]: one.values["bytes"] for one in attacks if one.source == "photographs"}
    assert coded["feature:quality=3"] < coded["raw"]
    assert originals.values["drawn"].keys() == {"bus", "zidane"}
    for whole, close in originals.values["drawn"].values():
        assert Image.open(io.BytesIO(base64.b64decode(whole))).width == 240
        face = Image.open(io.BytesIO(base64.b64decode(close)))
        assert face.width == face.height

    text = study.book.path.read_text()
    inversion.measure(make_study(**training))
    assert study.book.path.read_text() == text, "what is there is not measured again"


def test_a_perfect_thief_draws_the_picture_itself(
    make_study: StudyFactory, training: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who gets back the very picture is like it in all of what is measured, padding left out of account."""
    study = make_study(**training)
    (subject,) = study.subjects
    (sample, *_) = subject.samples(study.images)

    def draw(self: PictureDecoder, features: torch.Tensor) -> torch.Tensor:
        drawn = torch.zeros_like(sample.picture)
        drawn[..., *sample.shown] = sample.picture[..., *sample.shown]
        return drawn

    monkeypatch.setattr(PictureDecoder, "draw", draw)
    attack = Attack(subject, PictureDecoder(64, 8), unchanged)
    attack.on(sample)
    values = attack.values()
    assert values["ssim"] == pytest.approx(1, abs=1e-5)
    assert values["psnr"] == 100
    assert values["seen"] == values["sent"]


def test_of_a_clip_frames_count_that_differ(make_study: StudyFactory, video: Path) -> None:
    study = make_study()
    (subject,) = study.subjects
    frames = clip_pictures(video)
    count = sum(1 for _ in subject.samples(frames))
    assert len(list(chosen(study, subject, frames))) == -(-count // EVERY)
    assert len(list(chosen(study, subject, study.images))) == 3


@pytest.mark.parametrize("place", ["images", "clip", "photographs"])
def test_nothing_is_drawn_that_was_trained_on(
    place: str, make_study: StudyFactory, pictures: Path, video: Path
) -> None:
    trained_on = {
        "images": lambda: folder_pictures(pictures),
        "clip": lambda: clip_pictures(video),
        "photographs": lambda: folder_pictures(PHOTOGRAPHS),
    }[place]()
    study = make_study(training=[trained_on], quick=True)
    inversion.measure(study)
    assert not study.book.of("inversion")
    (refusal,) = study.refusals
    assert str(trained_on.files[0]) in refusal
    assert "--train" in refusal


def test_what_cannot_be_measured_is_told(make_study: StudyFactory, training: dict[str, Any]) -> None:
    alone = make_study(quick=True)
    inversion.measure(alone)
    assert "--train" in alone.refusals[0]
    random = make_study(weights=RANDOM, **training)
    inversion.measure(random)
    assert "random weights" in random.refusals[0]
    classifier = make_study(**training)
    classifier.subjects[0].scores = ("top1",)
    inversion.measure(classifier)
    assert "classifier" in classifier.refusals[0]
    assert not classifier.book.of("inversion")


def test_pictures_too_thin_to_compare_are_refused(make_study: StudyFactory, training: dict[str, Any]) -> None:
    (subject,) = make_study(**training).subjects
    attack = Attack(subject, PictureDecoder(64, 8), unchanged)
    with pytest.raises(NotMeasurable, match="narrower than 11 pixels"):
        attack.values()


def _records(agreement: float | None) -> list[StudyRecord]:
    text = encoded(Image.new("RGB", (24, 16), "red"))
    drawn = {"drawn": {"zidane": [text, text]}}
    told = {"trained_on": ["folder 3 abc"], "steps": [4, 2]}
    found = {"agreement": agreement} if agreement is not None else {}
    values = {
        "ssim": 0.61,
        "psnr": 19.2,
        "bytes": 2048,
        "pictures": 2,
        "sent": {"agreement": 0.97},
        "seen": found,
    }
    return [
        record("inversion", {"codec": ORIGINAL}, drawn),
        *(record("inversion", {"codec": codec, **told}, {**values, **drawn}) for codec in CODECS),
    ]


@pytest.mark.parametrize(
    ("agreement", "verdict"),
    [(0.4, "does not agree"), (0.02, "stronger one may"), (None, "stronger one may")],
)
def test_the_verdict_follows_the_detector(agreement: float | None, verdict: str) -> None:
    section = inversion.present(_records(agreement))
    (claim,) = section.claims
    assert verdict in claim.verdict
    rows = section.tables[0].rows
    assert [row[1:4] for row in rows] == [["2.0", "0.610", "19.2"]] * len(CODECS)
    assert rows[0][5] == ("" if agreement is None else f"{agreement:.3f}")
    (drawing,) = section.drawings
    assert drawing.photographic
    assert len(drawing.figure.axes) == 2 * (1 + len(CODECS))
    assert any("folder 3 abc" in note for note in section.notes)


def test_without_photographs_nothing_is_drawn() -> None:
    values = {key: value for key, value in _records(0.4)[1].values.items() if key != "drawn"}
    section = inversion.present([record("inversion", _records(0.4)[1].settings, values)])
    assert not section.drawings
    assert section.tables[0].rows
