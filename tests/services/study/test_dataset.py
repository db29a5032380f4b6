"""Pictures to measure on: which class the folders of a folder stand for."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from services.study.dataset import class_pictures
from stream.errors import SourceError

CLASSES = ("tench", "goldfish", "great white shark")


def _fill(folder: Path, **counts: int) -> Path:
    for number, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir()
        for index in range(count):
            cv2.imwrite(
                str(folder / name / f"{index}.png"), np.full((4, 4, 3), 10 * number + index, np.uint8)
            )
    return folder


@pytest.mark.parametrize(
    ("names", "labels"),
    [(("0", "2"), (0, 2)), (("goldfish", "tench"), (1, 0)), (("n1", "n2", "n3"), (0, 1, 2))],
)
def test_folders_are_named_by_number_name_or_imagenets_own(
    tmp_path: Path, names: tuple[str, ...], labels: tuple[int, ...]
) -> None:
    pictures = class_pictures(_fill(tmp_path, **dict.fromkeys(names, 1)), CLASSES)
    assert pictures.classes == labels
    images = list(pictures.images())
    assert [label for _, label in images] == list(labels)
    assert [int(image[0, 0, 0]) for image, _ in images] == [10 * number for number in range(len(names))]


def test_few_pictures_are_of_many_classes(tmp_path: Path) -> None:
    folder = _fill(tmp_path, **{"0": 3, "1": 1, "2": 2})
    assert class_pictures(folder, CLASSES).classes == (0, 1, 2, 0, 2, 0)
    assert class_pictures(folder, CLASSES, most=4).classes == (0, 1, 2, 0)


@pytest.mark.parametrize(
    ("names", "message"),
    [(("n1", "n2"), "2 of ImageNet's 3"), (("tench", "cat"), "'cat'"), (("7",), "'7'"), ((), "no folders")],
)
def test_what_cannot_be_matched_is_refused(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    _fill(tmp_path, **dict.fromkeys(names, 1))
    with pytest.raises(SourceError, match=message):
        class_pictures(tmp_path, CLASSES)


def test_folders_without_pictures_and_broken_pictures_are_told(tmp_path: Path) -> None:
    _fill(tmp_path, tench=0)
    with pytest.raises(SourceError, match="no images"):
        class_pictures(tmp_path, CLASSES)
    (tmp_path / "tench" / "a.jpg").write_bytes(b"no picture")
    with pytest.raises(SourceError, match=r"a\.jpg"):
        class_pictures(tmp_path, CLASSES)
    _fill(tmp_path, goldfish=2)
    pictures = class_pictures(tmp_path, CLASSES)
    assert (pictures.classes, len(list(pictures.images()))) == ((1, 1), 2)
    assert "1 left out, 2 taken (a.jpg: OpenCV cannot decode it)" in pictures.account
