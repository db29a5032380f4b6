"""Datasets as they are read: which pictures, with which labels, and what is refused."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from services.evaluation.dataset import read_clip, read_images
from stream.errors import SourceError
from tests.services.clips import SIZE


@pytest.fixture(scope="module")
def folder(tmp_path_factory, video):
    """Four images."""
    images = tmp_path_factory.mktemp("images")
    for number, picture in enumerate(read_clip(video, every=5).pictures):
        cv2.imwrite(str(images / f"{number}.png"), picture.image)
    return images


def test_a_picture_without_a_label_file_has_no_objects(folder, tmp_path):
    images, labels = tmp_path / "images", tmp_path / "labels"
    images.mkdir()
    labels.mkdir()
    for name in ("a.png", "b.png"):
        (images / name).write_bytes((folder / "1.png").read_bytes())
    (labels / "a.txt").write_text("2 0.5 0.5 0.25 0.5\n\n")
    first, second = (picture.labels for picture in read_images(images).pictures)
    height, width = SIZE
    assert first.boxes.tolist() == [[width * 0.375, height * 0.25, width * 0.625, height * 0.75]]
    assert (first.class_id.tolist(), len(second)) == ([2], 0)


@pytest.mark.parametrize(("every", "most", "taken"), [(1, 3, 3), (3, 9, 2), (1, None, 4)])
def test_sampling(every, most, taken, folder):
    dataset = read_images(folder, every, most)
    assert dataset.expected == len(list(dataset.pictures)) == taken


@pytest.mark.parametrize("text", ["0 0.5 0.5 0.5", "person 0.5 0.5 0.1 0.1", "0 1 1 1 1\n0 1 1 1 1 1 1"])
def test_refuses_other_labels(text, tmp_path):
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    cv2.imwrite(str(tmp_path / "images" / "a.png"), np.zeros((32, 32, 3), np.uint8))
    (tmp_path / "labels" / "a.txt").write_text(text)
    with pytest.raises(SourceError, match="rows of class"):
        list(read_images(tmp_path / "images").pictures)


def test_labels_stay_with_their_pictures_where_others_are_left_out(folder, tmp_path):
    images, labels = tmp_path / "images", tmp_path / "labels"
    images.mkdir()
    labels.mkdir()
    for number, name in enumerate("ace"):
        (images / f"{name}.png").write_bytes((folder / "1.png").read_bytes())
        (labels / f"{name}.txt").write_text(f"{number} 0.5 0.5 0.25 0.5\n")
    (images / "b.png").write_bytes(b"text")
    (images / "._c.png").write_bytes(b"\x00\x05\x16\x07")
    dataset = read_images(images)
    assert [picture.labels.class_id.tolist() for picture in dataset.pictures] == [[0], [1], [2]]
    assert dataset.expected == 3
    assert "2 left out, 3 taken" in dataset.account


def test_refuses_a_folder_without_images(tmp_path):
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(SourceError, match=r"no images in|cannot be read"):
            read_images(folder)


def test_clips_are_sampled_from_the_first_frame(video):
    frames = [picture.image for picture in read_clip(video).pictures]
    dataset = read_clip(video, every=3, max_frames=4)
    assert dataset.expected == 4
    for taken, frame in zip(dataset.pictures, frames[0:12:3], strict=True):
        assert np.array_equal(taken.image, frame)
    assert len(list(read_clip(video, every=3).pictures)) == read_clip(video, every=3).expected == 7


def test_refuses_what_is_no_clip(tmp_path):
    with pytest.raises(SourceError, match="there is no file"):
        read_clip(tmp_path / "absent.mp4")
