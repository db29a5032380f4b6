from __future__ import annotations

import numpy as np
import pytest

from stream.sources.capture_messages import Frozen, Moving
from stream.sources.stillness import FROZEN_NS, FROZEN_PICTURES, Stillness
from tests.stream.sources.watching import numbered

PERIOD_NS = FROZEN_NS // FROZEN_PICTURES


def changes(stillness: Stillness, pictures: list[np.ndarray], period_ns: int, first: int = 0) -> list:
    """What each picture changes, by its index, but for those that change nothing."""
    seen = [stillness.look(picture, (first + index) * period_ns) for index, picture in enumerate(pictures)]
    return [(index, change) for index, change in enumerate(seen) if change is not None]


def test_pictures_that_differ_change_nothing():
    stillness = Stillness()
    assert changes(stillness, [numbered(number) for number in range(200)], PERIOD_NS) == []
    assert stillness.repeated == 0


def test_many_pictures_that_are_the_same_are_frozen_until_one_differs():
    stillness = Stillness()
    pictures = [numbered(7)] * (2 * FROZEN_PICTURES) + [numbered(8), numbered(8)]
    assert changes(stillness, pictures, PERIOD_NS) == [
        (FROZEN_PICTURES, Frozen(FROZEN_PICTURES + 1)),
        (2 * FROZEN_PICTURES, Moving()),
    ]
    assert stillness.repeated == 2 * FROZEN_PICTURES


def test_a_fast_camera_is_not_frozen_sooner():
    assert changes(Stillness(), [numbered(7)] * 400, PERIOD_NS // 10) == []


def test_a_slow_camera_is_frozen_after_as_many_pictures():
    ((index, _),) = changes(Stillness(), [numbered(7)] * 100, 10 * PERIOD_NS)
    assert index == FROZEN_PICTURES - 1


def test_one_pixel_makes_a_difference_wherever_it_is():
    stillness = Stillness()
    picture = numbered(7)
    for row in (0, 5, 100, 239):
        picture = picture.copy()
        picture[row, 17, 1] ^= 1
        stillness.look(picture, 0)
    assert stillness.repeated == 0


def test_another_size_makes_a_difference():
    stillness = Stillness()
    stillness.look(np.zeros((240, 320, 3), np.uint8), 0)
    stillness.look(np.zeros((480, 640, 3), np.uint8), 0)
    assert stillness.repeated == 0


def test_coding_noise_is_no_movement_and_no_repetition():
    stillness = Stillness()
    generator = np.random.default_rng(1)
    picture = generator.integers(1, 254, (240, 320, 3), np.uint8)
    pictures = [picture + generator.integers(0, 3, picture.shape, np.uint8) - 1 for _ in range(60)]
    assert changes(stillness, pictures, PERIOD_NS)[0][1] == Frozen(FROZEN_PICTURES + 1)
    assert stillness.repeated == 0


def test_the_noise_of_a_sensor_is_movement():
    generator = np.random.default_rng(1)
    pictures = [generator.normal(128, 1, (240, 320, 3)).round().astype(np.uint8) for _ in range(60)]
    assert changes(Stillness(), pictures, PERIOD_NS) == []


def test_a_slow_change_is_movement():
    """Dusk, for one: each picture is near the one before, but not near the first."""
    pictures = [np.full((240, 320, 3), number // 10, np.uint8) for number in range(600)]
    assert changes(Stillness(), pictures, PERIOD_NS) == []


@pytest.mark.parametrize(("dark", "light"), [(0, 255), (1, 255), (0, 254), (0, 4), (251, 255)])
def test_a_difference_is_one_at_both_ends_of_the_range(dark, light):
    stillness = Stillness()
    pictures = [np.full((64, 64, 3), value, np.uint8) for value in (dark, light) * 60]
    assert changes(stillness, pictures, PERIOD_NS) == []
    assert stillness.repeated == 0
