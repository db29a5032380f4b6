"""What cannot be read among images is left out, counted and told, by every command that reads a folder."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from services.cli import main
from services.errors import Exit
from services.evaluation.images import folder_images, readable_images
from stream.errors import SourceError, UnreadableImage
from stream.sources.files import list_images
from tests.stream.network import legacy


def picture(path: Path, shade: int = 100) -> Path:
    image = np.full((48, 64, 3), shade, np.uint8)
    path.write_bytes(cv2.imencode(".png", image)[1].tobytes())
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images among what is often found beside them."""
    images = tmp_path / "mixed"
    images.mkdir()
    for number in range(3):
        picture(images / f"{number}.png", 10 * number)
    (images / "._0.png").write_bytes(b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X")
    (images / "0a.jpg").write_bytes(b"no picture")
    (images / "1a.jpg").write_bytes(b"")
    picture(images / "scan.tif")
    picture(images / "more.gif")
    (images / "clip.mp4").write_bytes(b"")
    (images / "labels.txt").write_text("")
    (images / "folder.png").mkdir()
    os.mkfifo(images / "pipe.png")
    return images


def test_left_out_counted_and_told(folder):
    files = folder_images(folder)
    assert [path.name for path in files.paths] == ["0.png", "1.png", "2.png"]
    assert [int(image[0, 0, 0]) for image in files] == [0, 10, 20]
    account = files.account()
    assert account.startswith("mixed: 8 left out, 3 taken (")
    for name in ("._0.png", "0a.jpg and 1 more: OpenCV cannot decode it", "more.gif and 1 more", "clip.mp4"):
        assert name in account
    assert "labels.txt" not in account
    assert len(account.splitlines()) == 1


def test_nothing_to_tell_of_a_clean_folder(tmp_path):
    picture(tmp_path / "a.png")
    assert folder_images(tmp_path).account() == ""


def test_names_of_strangers_stay_on_their_line(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "b\n\x1b[31m\udcff.png").write_bytes(b"text")
    account = folder_images(tmp_path).account()
    assert account.isprintable()
    account.encode()


def test_as_many_as_asked_for_where_some_are_left_out(folder):
    assert [path.name for path in folder_images(folder, most=2).paths] == ["0.png", "1.png"]
    every_second = folder_images(folder, every=2)  # of those with an image's name: 0.png 1.png 2.png
    assert [path.name for path in every_second.paths] == ["0.png", "1.png", "2.png"]


def test_a_file_that_changes_later_is_an_error(folder):
    files = folder_images(folder)
    (folder / "1.png").write_bytes(b"gone")
    with pytest.raises(UnreadableImage, match=r"1\.png"):
        list(files)


def test_a_folder_in_which_nothing_can_be_read_is_refused(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"text")
    with pytest.raises(SourceError, match=r"no images in .* can be read; .*a\.jpg: OpenCV cannot decode it"):
        folder_images(tmp_path)
    with pytest.raises(SourceError, match="no images in the list"):
        readable_images("none", [], place="the list")


@pytest.mark.parametrize("command", ["evaluate", "advise"])
def test_every_command_tells_and_goes_on(folder, capsys, weights, tmp_path, command):
    arguments = {
        "evaluate": ["--data", str(folder), "--codec", "rle:bits=4"],
        "advise": ["--source", str(folder), "--link-kbps", "1000", "--split", "4.m", "--codec", "rle:bits=4"],
    }[command]
    written = tmp_path / "out.json"
    arguments += ["--json", str(written)]
    assert main([command, "--model", str(weights), "--size", "64", *arguments]) == Exit.OK
    assert "mixed: 8 left out, 3 taken" in capsys.readouterr().err
    if command == "evaluate":
        assert json.loads(written.read_text())["left_out"] == 8


@pytest.mark.parametrize("command", ["evaluate", "advise", "calibrate", "study"])
def test_every_command_follows_the_networks_stride(tmp_path, capsys, command):
    """A picture of 48x64 pixels has a canvas of 160x192 in other networks, which four levels cannot have."""
    model = legacy.save(legacy.Model(legacy.deep_description(4, classes=2)), tmp_path / "p6.pt")
    for number in range(16):
        picture(tmp_path / f"{number}.png", 10 * number)
    folder, out = str(tmp_path), str(tmp_path / "out")
    arguments = {
        "evaluate": ["--data", folder, "--codec", "rle:bits=4", "--max-frames", "1"],
        "advise": [
            "--source",
            folder,
            "--link-kbps",
            "900",
            "--split",
            "4.m",
            "--codec",
            "rle:bits=4",
            "--frames",
            "1",
        ],
        "calibrate": ["--images", folder, "--draws", "1", "--variants", "0", "--output", out],
        "study": ["fft", "--data", folder, "--images", "1", "--out", out],
    }[command]
    assert main([command, *arguments, "--model", str(model), "--size", "192"]) == Exit.OK, (
        capsys.readouterr().err
    )
    assert main([command, *arguments, "--model", str(model), "--size", "160x192"]) == Exit.USAGE
    assert "multiples of 64" in capsys.readouterr().err


def test_lists_what_the_camera_lists(folder):
    left_out = {left.path.name for left in folder_images(folder).left_out}
    assert {item.path.name for item in list_images(folder) if not isinstance(item, Path)} <= left_out
