"""`splitcast profile show` on a profile, and on files that are none."""

from __future__ import annotations

import numpy as np
import pytest

from codec.calibration import MIN_SAMPLES, Sample, calibrate
from codec.profile import MAX_PROFILE_BYTES, Profile
from services import describe
from services.cli import Exit, main


def profile(**metadata: str | int) -> Profile:
    """A small profile, of noise."""
    rng = np.random.default_rng(0)

    def noise():
        return {"4.m": rng.standard_normal((4, 8, 8)).astype(np.float32)}

    samples = [Sample(noise(), [noise()]) for _ in range(MIN_SAMPLES)]
    return calibrate(lambda: samples, metadata)


@pytest.fixture
def show(tmp_path, capsys, monkeypatch):
    """Runs the command on a file of these bytes: the exit code, and what came on both outputs."""
    monkeypatch.setenv("COLUMNS", "100")

    def show(data: bytes) -> tuple[int, str, str]:
        (tmp_path / "some.profile").write_bytes(data)
        return main(["profile", "show", str(tmp_path / "some.profile")]), *capsys.readouterr()

    return show


def test_shows_every_row_of_the_description(show):
    shown = profile(model="yolov5n", split="4.m", images=128)
    code, out, _ = show(shown.pack())
    assert code == Exit.OK
    lines = [[cell.strip() for cell in line.split("│")[1:3]] for line in out.splitlines() if "│" in line]
    assert lines == [[name, value] for name, value in shown.describe()]
    assert ["model", "yolov5n"] in lines
    assert ["hash", shown.hash] in lines


def test_a_profiles_words_do_not_steer_the_terminal(show):
    code, out, _ = show(profile(model="\x1b[2J[red]n\x07\n\u202e", **{"\x1b]0;title\x07": 1}).pack())
    assert code == Exit.OK
    assert all(character.isprintable() or character == "\n" for character in out)
    assert "[red]n" in out


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
    assert code == Exit.FAILURE
    assert out == ""
    assert "some.profile is no profile" in err
    assert reason in err


def test_a_shipped_profile_is_shown_by_its_hash(monkeypatch, capsys):
    shipped = profile(model="yolov5n")
    monkeypatch.setattr(describe, "SHIPPED", {shipped.hash: shipped})
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["profile", "show", shipped.hash]) == Exit.OK
    assert shipped.hash in capsys.readouterr().out
    assert main(["profile", "show", "0" * 64]) == Exit.FAILURE


def test_a_missing_file_is_named(tmp_path, capsys):
    assert main(["profile", "show", str(tmp_path / "absent")]) == Exit.FAILURE
    assert "absent" in capsys.readouterr().err
