"""Noise of a known size on pictures, judged by what there is to see without it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from services.evaluation.codec_sets import parse_codecs
from services.evaluation.dataset import Dataset, LabeledPicture, letterboxed, read_clip, read_images
from services.evaluation.evaluate import evaluate
from services.evaluation.labels import ClassMap
from services.evaluation.noise import noisy, with_noise
from stream.network.engine import open_network
from tests.services.clips import SIZE

GRAY = np.full((200, 300, 3), 128, np.uint8)
PICTURES, REPEAT = 2, 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory, video):
    images = tmp_path_factory.mktemp("images")
    for number, picture in enumerate(read_clip(video, every=10, max_frames=PICTURES).pictures):
        cv2.imwrite(str(images / f"{number}.png"), picture.image)
    return images


@pytest.fixture(scope="module")
def network(weights):
    return open_network(weights)


@pytest.mark.parametrize("deviation", [1, 2, 8])
def test_noise_has_the_deviation_and_no_bias(deviation):
    noise = noisy(GRAY, deviation, 0).astype(float) - GRAY
    assert noise.mean() == pytest.approx(0, abs=0.03)
    assert noise.std() == pytest.approx(np.hypot(deviation, 1 / np.sqrt(12)), rel=0.02)  # of rounding


def test_noise_is_fresh_for_each_number_and_the_same_again():
    first, second = noisy(GRAY, 2, 0), noisy(GRAY, 2, 1)
    np.testing.assert_array_equal(first, noisy(GRAY, 2, 0))
    correlation = np.corrcoef(first.ravel(), second.ravel())[0, 1]
    assert abs(correlation) < 0.02


def test_noise_is_clipped():
    black = np.zeros((50, 50, 3), np.uint8)
    assert noisy(black, 8, 0).max() < 60  # and not 250, which is -6
    assert noisy(255 - black, 8, 0).min() > 195


def test_each_picture_is_repeated_with_fresh_noise(folder):
    clean = read_images(folder)
    dataset = with_noise(clean, 2, REPEAT)
    pictures = list(dataset.pictures)
    assert dataset.expected == len(pictures) == PICTURES * REPEAT
    assert [picture.sequence for picture in pictures] == [0] * REPEAT + [1] * REPEAT
    images = [picture.image.tobytes() for picture in pictures]
    assert len(set(images)) == len(images)
    for picture, original in zip(pictures[::REPEAT], clean.pictures, strict=True):
        np.testing.assert_array_equal(picture.clean, original.image)
    assert [picture.image.tobytes() for picture in dataset.pictures] == images


def test_a_canvas_of_what_is_clean_is_shared(folder):
    views = list(letterboxed(with_noise(read_images(folder), 2, REPEAT), ClassMap(None, ("a",)), 96, 32))
    assert len({id(view.clean) for view in views}) == PICTURES
    assert all(view.clean is not view.canvas for view in views)
    views = list(letterboxed(read_images(folder), ClassMap(None, ("a",)), 96, 32))
    assert all(view.clean is view.canvas for view in views)


class TestEvaluation:
    def test_whoever_keeps_the_noise_is_no_better_than_the_noise(self, network, folder):
        """Raw tensors are a perfect copy of the noisy picture, and so as far from the clean one."""
        none, raw = evaluate(
            network, parse_codecs(["raw"]), with_noise(read_images(folder), 8, REPEAT), size=SIZE
        )
        assert raw.distortion == none.distortion > 0
        assert raw.agreement == none.agreement < 1
        none, raw = evaluate(
            network, parse_codecs(["raw"]), with_noise(read_images(folder), 0, REPEAT), size=SIZE
        )
        assert raw.distortion == none.distortion == 0
        assert raw.agreement == none.agreement == 1

    def test_whoever_removes_the_noise_is_better_than_who_keeps_it(self, network, folder, monkeypatch):
        """A decoder that knows the clean picture is at the ceiling, for the tensors and for the pixels."""
        dataset = with_noise(read_images(folder), 8, REPEAT)
        clean = iter([picture.image for picture in read_images(folder).pictures for _ in range(REPEAT)])
        monkeypatch.setattr(
            "services.evaluation.runs.PixelRun._code",
            lambda run, coder, first, canvas, last: [next(clean)],
        )
        none, perfect = evaluate(network, parse_codecs(["jpeg:quality=50"]), dataset, size=SIZE)
        assert none.distortion > perfect.distortion == 0

    def test_a_repeated_picture_is_one_keyframe_and_differences(self, network, folder):
        dataset = with_noise(read_images(folder), 2, REPEAT)
        codecs = parse_codecs(["rle:bits=4,temporal=true", "x264:crf=20", "jpeg:quality=50"])
        _, rle, x264, jpeg = evaluate(network, codecs, dataset, size=SIZE)
        for record in (rle, x264):
            assert record.frame_is_key == (True, *[False] * (REPEAT - 1)) * PICTURES
            keys = [record.frame_bytes[n * REPEAT] for n in range(PICTURES)]
            assert record.keyframe_kb == pytest.approx(sum(keys) / PICTURES / 1e3, abs=1e-3)
            assert record.difference_kb < record.keyframe_kb
            assert record.frame_sequence == (0,) * REPEAT + (1,) * REPEAT
        assert jpeg.keyframes == PICTURES * REPEAT
        assert jpeg.difference_kb is None

    def test_a_clip_stays_one_sequence(self, network, video):
        dataset = with_noise(read_clip(video, max_frames=5), 2)
        none, x264 = evaluate(network, parse_codecs(["x264:crf=20"]), dataset, size=SIZE)
        assert x264.frame_sequence == (0,) * 5
        assert x264.keyframes == 1
        assert none.distortion > 0


def test_labels_stay_with_noisy_pictures():
    """They tell what there is to see, with noise or without."""
    picture = LabeledPicture(GRAY, object())
    noisy_pictures = with_noise(Dataset("data", "a", 1, [picture]), 2, 3).pictures
    assert [found.labels for found in noisy_pictures] == [picture.labels] * 3
