"""A study of a small random network, on made-up pictures and a made-up video."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from services.study.dataset import PictureSet, clip_pictures, folder_pictures
from services.study.detection import Detection
from services.study.record import RecordBook
from services.study.study import Study
from stream.torch_network.model import Model, load_model
from tests.services.study.records import StudyFactory

PICTURES = 3


@pytest.fixture(scope="session")
def model(weights: Path) -> Model:
    """A yolov5n with random weights and three classes."""
    return load_model(weights)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of JPEG files of 64 by 96 pixels, all different."""
    return _made(tmp_path_factory.mktemp("pictures"), seed=1)


@pytest.fixture(scope="session")
def other_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like `pictures`, that has no picture in common with it."""
    return _made(tmp_path_factory.mktemp("others"), seed=2)


def _made(folder: Path, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    for number in range(PICTURES):
        coarse = rng.integers(0, 255, (8, 12, 3), np.uint8)
        picture = cv2.resize(coarse, (96, 64), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"{number}.jpg"), picture)
    return folder


@pytest.fixture
def images(pictures: Path) -> PictureSet:
    return folder_pictures(pictures)


@pytest.fixture
def make_study(tmp_path: Path, model: Model, images: PictureSet, video: Path) -> StudyFactory:
    """A study of the random network, which passes for trained unless `weights` is RANDOM."""

    def make(book: str = "records.jsonl", weights: str = "hash", split: str = "4.m", **changes: Any) -> Study:
        subject = Detection("tiny", model, weights, split, (64, 96))
        given = {"subjects": [subject], "images": images, "clips": [clip_pictures(video)], **changes}
        return Study(RecordBook(tmp_path / book), **given)

    return make
