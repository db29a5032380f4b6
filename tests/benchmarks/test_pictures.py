"""More pictures than anybody labels: which are taken, and each once."""

from __future__ import annotations

import cv2
import numpy as np

from stream.sources.files import read_image
from tests.benchmarks.pictures import from_clip, gather, is_photograph
from tests.services.clips import write_video

PHOTOGRAPH = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)


def test_every_picture_is_taken_once(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "tests.benchmarks.pictures.from_packages", lambda: iter([("numpy-noise", PHOTOGRAPH)])
    )
    folder = tmp_path / "in"
    folder.mkdir()
    cv2.imwrite(str(folder / "noise.png"), PHOTOGRAPH)
    cv2.imwrite(str(folder / "again.png"), PHOTOGRAPH)
    (folder / "broken.png").write_bytes(b"text")
    video, seconds = write_video(tmp_path / "clip.avi", frames=18, fps=5), 4
    assert gather(tmp_path / "out", [folder], [video]) == 1 + seconds
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == sorted(["again.png", *(f"{video.stem}-{second:04}.png" for second in range(seconds))])
    np.testing.assert_array_equal(read_image(tmp_path / "out" / "again.png"), PHOTOGRAPH)
    assert len(list(from_clip(video))) == seconds


def test_icons_and_diagrams_are_no_photographs():
    assert is_photograph(PHOTOGRAPH)
    assert not is_photograph(PHOTOGRAPH[:100])
    assert not is_photograph(np.full((400, 400, 3), 255, np.uint8))
