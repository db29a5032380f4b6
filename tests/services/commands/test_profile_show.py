"""`splitcast profile show` on a profile, and on files that are none."""

from __future__ import annotations

import numpy as np
import pytest

from codec.feature.profile import MAX_PROFILE_BYTES, Profile
from codec.feature.uncalibrated import profile_of
from services.cli import main
from services.commands import profile_show
from services.errors import Exit


def profile(**metadata: str | int) -> Profile:
    """A small profile, fitted to nothing."""
    ranges = np.array([[-1] * 4, [1] * 4], np.float16)
    return Profile((profile_of(ranges),), metadata)


@pytest.fixture
def show(tmp_path, capsys):
    """Runs the command on a file of these bytes: the exit code, and what came on both outputs."""

    def show(data: bytes) -> tuple[int, str, str]:
        (tmp_path / "some.profile").write_bytes(data)
        return main(["profile", "show", str(tmp_path / "some.profile")]), *capsys.readouterr()

    return show


def test_shows_every_row_of_the_description(show):
    shown = profile(model="yolov5n", split="4.m", images=128)
    code, out, _ = show(shown.pack())
    assert code == Exit.OK
    lines = [line.split("  ", 1) for line in out.splitlines()]
    lines = [[name, value.strip()] for name, value in lines]
    assert lines == [[name, value] for name, value in shown.describe()]
    assert ["model", "yolov5n"] in lines
    assert ["hash", shown.hash] in lines


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "does not start as a profile"),
        (b"\x89PNG" + bytes(100), "does not start as a profile"),
        (profile().pack()[:-1], "bytes, not the"),
        (bytes(MAX_PROFILE_BYTES + 5), f"at most {MAX_PROFILE_BYTES}"),
    ],
    ids=["empty", "picture", "cut short", "too long"],
)
def test_another_file_is_refused_by_its_name(show, data, reason):
    code, out, err = show(data)
    assert code == Exit.USAGE
    assert out == ""
    assert "some.profile is no profile" in err
    assert reason in err


def test_a_shipped_profile_is_shown_by_its_hash(monkeypatch, capsys):
    bundled = profile(model="yolov5n")
    monkeypatch.setattr(profile_show, "BUNDLED", {bundled.hash: bundled})
    assert main(["profile", "show", bundled.hash]) == Exit.OK
    assert bundled.hash in capsys.readouterr().out
    assert main(["profile", "show", "0" * 64]) == Exit.USAGE


def test_a_missing_file_is_named(tmp_path, capsys):
    assert main(["profile", "show", str(tmp_path / "absent")]) == Exit.USAGE
    assert "absent" in capsys.readouterr().err
