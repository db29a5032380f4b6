from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import cv2
import numpy as np
import pytest
from ultralytics.utils import ASSETS

from stream.errors import BadVirtualCamera
from stream.sources import virtual_camera
from stream.sources.virtual_camera import SCENES, Shot, VirtualCamera, photograph

SIZES = [(640, 480), (1280, 720), (480, 640), (333, 333), (1920, 64), (64, 1920)]
MINUTES = range(0, 15 * 60 * 5, 31)  # frames of five minutes, of no period that the movement has

# Points of the photographs, (x, y): the middle of faces and chests.
MEN_OF_THE_STREET = [(135, 450), (130, 570), (288, 445), (288, 560)]
MEN_AT_THE_PITCH = [(600, 350), (470, 480), (985, 190), (1000, 330)]


def to_frame(camera: VirtualCamera, n: int, points: list[tuple[int, int]]) -> np.ndarray:
    """Where frame n shows points of its photograph."""
    return np.hstack((points, np.ones((len(points), 1)))) @ camera.view(n).matrix.T


def window(camera: VirtualCamera, n: int) -> np.ndarray:
    """The points of the photograph at the frame's upper left and lower right corners."""
    inverse = cv2.invertAffineTransform(camera.view(n).matrix)
    return np.array([[0, 0, 1], [*camera.size, 1]]) @ inverse.T


@pytest.fixture
def constant_exposure(monkeypatch):
    monkeypatch.setattr(virtual_camera, "GAIN_RANGE", (1, 1))
    monkeypatch.setattr(virtual_camera, "WHITE_BALANCE", 0)


# --- What is the same and what is not ---


@pytest.mark.parametrize("scene", SCENES)
def test_a_frame_follows_from_settings_and_number(scene):
    camera = VirtualCamera(scene, size=(96, 64), seed=3)
    frames = [camera.render(n) for n in range(0, 200, 20)]
    again = VirtualCamera(scene, size=(96, 64), seed=3)
    for index in reversed(range(10)):
        np.testing.assert_array_equal(again.render(20 * index), frames[index])
    for first, second in pairwise(frames):
        assert np.any(first != second)


def test_a_frame_belongs_to_the_caller():
    camera = VirtualCamera(noise=0)
    before = camera.render(0)
    camera.render(0)[:] = 0
    np.testing.assert_array_equal(camera.render(0), before)
    assert before.shape == (480, 640, 3)
    assert before.dtype == np.uint8


@pytest.mark.parametrize("scene", SCENES)
def test_another_seed_is_another_video(scene):
    first, second = (VirtualCamera(scene, seed=seed) for seed in (0, 1))
    if scene != "tripod":
        assert np.any(np.abs(window(first, 30) - window(second, 30)) > 1)
    assert np.mean(first.render(30) != second.render(30)) > 0.5


def test_the_rate_changes_how_often_and_not_what_is_seen():
    slow, fast = VirtualCamera(fps=10, noise=0), VirtualCamera(fps=30, noise=0)
    np.testing.assert_array_equal(slow.render(70), fast.render(210))


# --- Movement ---


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scene", SCENES)
def test_no_frame_shows_what_is_outside_the_photograph(scene, size):
    for seed in range(3):
        camera = VirtualCamera(scene, size=size, seed=seed)
        for n in MINUTES:
            (left, top), (right, bottom) = window(camera, n)
            height, width = photograph(camera.view(n).photograph).shape[:2]
            assert left >= -1e-6
            assert top >= -1e-6
            assert right <= width + 1e-6
            assert bottom <= height + 1e-6


def test_a_window_as_large_as_the_photograph_does_not_shake_out_of_it(monkeypatch):
    monkeypatch.setitem(
        SCENES, "whole", (Shot("zidane", zoom=(1, 1.01), across=(0, 1), down=(0, 1), shake=50),)
    )
    camera = VirtualCamera("whole", size=(640, 360))
    windows = np.array([window(camera, n) for n in MINUTES])
    assert np.all(windows > -1e-6)
    assert np.all(windows < [1280 + 1e-6, 720 + 1e-6])


@pytest.mark.parametrize("scene", ["bus", "zidane"])
def test_the_camera_moves_smoothly_over_the_photograph(scene):
    camera = VirtualCamera(scene)
    windows = np.array([window(camera, n) for n in range(600)])
    assert np.all(np.ptp(windows, axis=0) > 25)
    steps = np.abs(np.diff(windows, axis=0))
    assert np.all(steps.max(axis=(1, 2)) < 10)
    assert np.all(steps.max(axis=(1, 2)) > 0)
    extents = windows[:, 1] - windows[:, 0]
    assert np.ptp(extents[:, 0]) > 25  # zoom
    np.testing.assert_allclose(extents[:, 0] / extents[:, 1], 640 / 480)


def test_the_tripod_stands_still(constant_exposure):
    camera = VirtualCamera("tripod", noise=0)
    for n in (1, 1000, 100_000):
        np.testing.assert_array_equal(camera.view(n).matrix, camera.view(0).matrix)
        np.testing.assert_array_equal(camera.render(n), camera.render(0))


def test_the_tour_cuts_every_few_seconds():
    camera = VirtualCamera("tour", fps=10)
    windows = np.array([window(camera, n) for n in range(401)])
    shown = [camera.view(n).photograph for n in range(401)]
    cuts = [n for n in range(1, 401) if shown[n] != shown[n - 1]]
    assert cuts == [60, 110, 160, 200, 260, 310, 360, 400]
    steps = np.abs(np.diff(windows, axis=0)).max(axis=(1, 2))
    assert max(step for n, step in enumerate(steps, 1) if n not in cuts) < 15


@pytest.mark.parametrize(
    ("scene", "points", "width"), [("bus", MEN_OF_THE_STREET, 140), ("zidane", MEN_AT_THE_PITCH, 330)]
)
@pytest.mark.parametrize("size", [(640, 480), (1280, 720)])
@pytest.mark.parametrize("seed", range(3))
def test_the_people_are_in_the_picture(scene, points, width, size, seed):
    camera = VirtualCamera(scene, size=size, seed=seed)
    shown = np.array([to_frame(camera, n, points) for n in MINUTES])
    inside = np.all((shown > 0) & (shown < size), axis=2)
    assert inside.mean() > 0.95
    assert min(camera.view(n).matrix[0, 0] for n in MINUTES) * width > size[0] / 7


# --- Picture ---


@pytest.mark.parametrize("size", [(640, 480), (320, 240), (200, 300), (900, 600)])
@pytest.mark.parametrize("scene", ["bus", "zidane"])
def test_the_frame_shows_what_its_view_says(constant_exposure, scene, size):
    """Against the mean of 4 x 4 points a pixel, found through the matrix."""
    camera = VirtualCamera(scene, size=size, noise=0)
    for n in (0, 503):
        view = camera.view(n)
        middles = [(np.arange(4 * side) + 0.5) / 4 for side in size]
        x, y = np.meshgrid(*middles)
        inverse = cv2.invertAffineTransform(view.matrix)
        points = np.stack((x, y, np.ones_like(x)), axis=-1) @ inverse.T - 0.5
        dense = cv2.remap(
            photograph(view.photograph),
            points.astype(np.float32),
            None,
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        expected = dense.reshape(size[1], 4, size[0], 4, 3).mean(axis=(1, 3))
        shown = camera.render(n)
        assert np.abs(shown - expected).mean() < 5
        shift, response = cv2.phaseCorrelate(
            shown.mean(axis=2), expected.mean(axis=2), cv2.createHanningWindow(size, cv2.CV_64F)
        )
        assert response > 0.8
        assert np.hypot(*shift) < 0.1


@pytest.mark.parametrize("level", [0.5, 2, 10, 64])
def test_the_noise_has_the_level_asked_for(constant_exposure, level):
    clean = VirtualCamera("tripod", noise=0).render(0).astype(float)
    camera = VirtualCamera("tripod", noise=level)
    gray = (clean > 110) & (clean < 145) if level == 64 else (clean > 50) & (clean < 200)
    errors = [(camera.render(n) - clean)[gray] for n in range(3)]
    # Rounding adds its own; and of strong noise the clipping at black and white takes some.
    expected = {0.5: np.hypot(0.5, 12**-0.5), 64: 60.5}.get(level, level)
    for error in errors:
        assert error.std() == pytest.approx(expected, rel=0.05)
        assert abs(error.mean()) < 0.02 * max(level, 2)
    for first, second in pairwise(errors):
        assert abs(np.corrcoef(first, second)[0, 1]) < (0.03 if level >= 2 else 0.5)


def test_the_noise_of_no_two_frames_is_related():
    camera = VirtualCamera("tripod", size=(128, 96), noise=20)
    clean = VirtualCamera("tripod", size=(128, 96), noise=0)
    noise = np.array([(camera.render(n) - clean.render(n).astype(float)).ravel() for n in range(40)])
    related = np.corrcoef(noise) - np.eye(40)
    assert np.abs(related).max() < 0.05
    blue, green, red = noise[0].reshape(-1, 3).T
    assert np.abs(np.corrcoef([blue, green, red]) - np.eye(3)).max() < 0.05


def test_the_exposure_drifts_slowly_and_clips():
    camera = VirtualCamera("tripod", size=(160, 120), noise=0)
    source = VirtualCamera("tripod", size=(160, 120), noise=0)
    still = source._warp(0, 0).astype(float)
    middle = (still > 60) & (still < 180)
    gains = []
    for n in range(0, 15 * 300, 15):
        frame = camera.render(n)
        gains.append(
            [np.median(frame[..., c][middle[..., c]] / still[..., c][middle[..., c]]) for c in range(3)]
        )
        assert frame[(still > 250)].min() >= min(255, int(250 * 0.75 * 0.97))
    gains = np.array(gains)
    assert 0.72 < gains.min() < 0.85
    assert 1.1 < gains.max() < 1.24
    assert np.abs(np.diff(gains, axis=0)).max() < 0.1  # a second
    balance = gains[:, 2] / gains[:, 0]
    assert 0.93 < balance.min() < 0.99
    assert 1.01 < balance.max() < 1.07


# --- Settings ---


def test_settings_left_out_have_their_defaults():
    assert VirtualCamera.parse("demo") == VirtualCamera.parse("demo:") == VirtualCamera()
    assert str(VirtualCamera()) == "demo:scene=tour,fps=15,size=640x480,noise=2,seed=0"


@pytest.mark.parametrize(
    "camera",
    [
        VirtualCamera("bus", 29.97, (1920, 1080), 0.0, 2**32 - 1),
        VirtualCamera("zidane", 1, (64, 64), 64, 7),
        VirtualCamera("tripod", 120, (65, 1919), 0.1, 1),
        VirtualCamera(noise=1e-05),
    ],
)
def test_settings_can_be_written_and_read(camera):
    assert VirtualCamera.parse(str(camera)) == camera


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("demo:scene=moon", "scene is 'moon'; give one of bus, zidane, tripod, tour"),
        ("demo:scene=", "give one of bus"),
        ("demo:fps=0", "fps is 0.0; give a number from 1 to 120"),
        ("demo:fps=121", "from 1 to 120"),
        ("demo:fps=nan", "from 1 to 120"),
        ("demo:fps=inf", "from 1 to 120"),
        ("demo:fps=fast", "fps is 'fast'; give"),
        ("demo:fps", "fps is ''; give"),
        ("demo:fps=1_5", "fps is '1_5'; give"),
        ("demo:fps=\u0661\u0665", "a number from 1 to 120"),  # 15 in Arabic digits
        ("demo:fps= 15", "fps is ' 15'; give"),
        ("demo:size=6_40x480", "give WIDTHxHEIGHT"),
        ("demo:seed=\u0661", "a whole number"),
        ("demo:noise=1_0", "gray levels"),
        ("demo:size=640", "size is '640'; give WIDTHxHEIGHT, each from 64 to 1920 pixels"),
        ("demo:size=640x", "give WIDTHxHEIGHT"),
        ("demo:size=640x480x3", "give WIDTHxHEIGHT"),
        ("demo:size=63x480", "from 64 to 1920"),
        ("demo:size=640x1921", "from 64 to 1920"),
        ("demo:size=-640x480", "from 64 to 1920"),
        ("demo:noise=-1", "gray levels, from 0 to 64"),
        ("demo:noise=65", "from 0 to 64"),
        ("demo:noise=nan", "from 0 to 64"),
        ("demo:seed=-1", "a whole number from 0 to 4294967295"),
        ("demo:seed=4294967296", "a whole number"),
        ("demo:seed=1.5", "a whole number"),
        ("demo:seed=" + "9" * 5000, "a whole number"),
        ("demo:zoom=2", "no setting 'zoom'; there are scene, fps, size, noise, seed"),
        ("demo:fps=15,", "no setting ''"),
        ("demo:fps=15,fps=20", "fps is given twice"),
        ("demo://bus", "no setting '//bus'"),
        ("democracy", "begin with demo:"),
    ],
)
def test_refuses_bad_settings(text, advice):
    with pytest.raises(BadVirtualCamera) as refused:
        VirtualCamera.parse(text)
    assert advice in str(refused.value)


@pytest.mark.parametrize("text", ["demo:scene=#", "demo:#=1", "#", "demo:seed=#", "demo:seed=9#"])
def test_a_refusal_repeats_little_of_what_was_given(text):
    with pytest.raises(BadVirtualCamera) as refused:
        VirtualCamera.parse(text.replace("#", "9" * 4000))
    assert len(str(refused.value)) < 250


@pytest.mark.parametrize("text", ["demo:rtsp://admin:hunter2@cam", "demo:scene=rtsp://admin:hunter2@cam"])
def test_a_password_that_went_astray_is_not_shown(text):
    with pytest.raises(BadVirtualCamera) as refused:
        VirtualCamera.parse(text)
    assert "hunter2" not in str(refused.value)


# --- Photographs ---


@pytest.mark.parametrize("name", ["bus", "zidane"])
def test_the_photographs_are_ultralytics_own(name):
    """The demo network's records were made on these."""
    assert (virtual_camera.FOLDER / f"{name}.jpg").read_bytes() == (ASSETS / f"{name}.jpg").read_bytes()


def test_says_what_to_do_where_a_photograph_is_missing_or_broken(tmp_path, monkeypatch):
    monkeypatch.setattr(virtual_camera, "FOLDER", tmp_path)
    photograph.cache_clear()
    with pytest.raises(BadVirtualCamera, match=r"bus\.jpg.* install splitcast again"):
        VirtualCamera("bus")
    (tmp_path / "bus.jpg").write_bytes(b"nonsense")
    with pytest.raises(BadVirtualCamera, match="install splitcast again"):
        VirtualCamera("bus")


def test_needs_no_torch():
    program = (
        "import sys; from stream.sources.virtual_camera import VirtualCamera; VirtualCamera().render(0); "
        "assert not {'torch', 'ultralytics'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
