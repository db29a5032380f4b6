"""Folders of classes: which number each stands for."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from services.study.imagenet import read_imagenet
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
    found = read_imagenet(_fill(tmp_path, **dict.fromkeys(names, 1)), CLASSES)
    assert found.labels == labels
    assert [label for _, label in found] == list(labels)
    assert [int(image[0, 0, 0]) for image, _ in found] == [10 * number for number in range(len(names))]


def test_few_pictures_are_of_many_classes(tmp_path: Path) -> None:
    folder = _fill(tmp_path, **{"0": 3, "1": 1, "2": 2})
    assert read_imagenet(folder, CLASSES).labels == (0, 1, 2, 0, 2, 0)
    assert read_imagenet(folder, CLASSES, max_images=4).labels == (0, 1, 2, 0)


@pytest.mark.parametrize(
    ("names", "told"),
    [(("n1", "n2"), "2 of ImageNet's 3"), (("tench", "cat"), "'cat'"), (("7",), "'7'"), ((), "no folders")],
)
def test_what_cannot_be_matched_is_refused(tmp_path: Path, names: tuple[str, ...], told: str) -> None:
    _fill(tmp_path, **dict.fromkeys(names, 1))
    with pytest.raises(SourceError, match=told):
        read_imagenet(tmp_path, CLASSES)


def test_folders_without_pictures_and_broken_pictures_are_told(tmp_path: Path) -> None:
    _fill(tmp_path, tench=0)
    with pytest.raises(SourceError, match="no images"):
        read_imagenet(tmp_path, CLASSES)
    (tmp_path / "tench" / "a.jpg").write_bytes(b"no picture")
    with pytest.raises(SourceError, match=r"a\.jpg"):
        list(read_imagenet(tmp_path, CLASSES))
