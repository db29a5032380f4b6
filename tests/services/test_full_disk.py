"""Commands whose output does not fit: on a file system of a few kB, which is mounted for one process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from services.errors import Exit
from tests.services.waiting import LIVENESS_S

pytestmark = pytest.mark.timeout(900)
MOUNT = 'mount -t tmpfs -o size=16k none "$0" && cp "$1" "$0/" && head -c 4k /dev/zero >"$0/ballast"; shift; "$@"; '
MOUNT += 'code=$?; ls -A "$0"; exit $code'
STUDY = """
import sys
from pathlib import Path
from services.study.record import RecordBook
book = RecordBook(Path(sys.argv[1]))
class Record:
    key = "a"
    def line(self): return "x" * 20000
try:
    book.add(Record())
finally:
    print("is", Path(sys.argv[1]).stat().st_size, "bytes", file=sys.stderr)
"""


def on_a_full_disk(folder: Path, beside: Path, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """The command with `folder` on a full file system, on which the file `beside` lies, and what is left there."""
    if subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", MOUNT, str(folder), str(beside), *command],
        capture_output=True,
        text=True,
        timeout=10 * LIVENESS_S,
        check=False,
    )


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    (folder := tmp_path / "disk").mkdir()
    return folder


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    frames = np.random.default_rng(0).normal(size=(2, 16, 40, 40)).astype(np.float32)
    np.savez(tmp_path / "in.npz", **{"4.m": frames})
    return tmp_path / "in.npz"


def test_encode_leaves_no_half_file(disk: Path, arrays: Path) -> None:
    small = disk.parent / "small"
    small.touch()
    command = ["-m", "services.cli", "encode", str(arrays), str(disk / "out.spc"), "--codec", "rle:bits=8"]
    done = on_a_full_disk(disk, small, [sys.executable, *command])
    assert done.returncode == Exit.FAILURE, done.stderr
    assert done.stdout.split() == ["ballast", "small"]
    (line,) = done.stderr.splitlines()
    assert line.startswith("splitcast: ")
    assert f"cannot write {disk / 'out.spc'}: No space left on device" in line


def test_a_record_of_the_study_that_does_not_fit_leaves_the_others(disk: Path) -> None:
    (records := disk.parent / "records.jsonl").touch()
    done = on_a_full_disk(disk, records, [sys.executable, "-c", STUDY, str(disk / "records.jsonl")])
    assert done.returncode
    assert "No space left on device" in done.stderr
    assert done.stdout.split() == ["ballast", "records.jsonl"]
    assert "is 0 bytes" in done.stderr


def test_standard_output_that_is_full_is_told() -> None:
    command = [sys.executable, "-m", "services.cli", "points", "--model", "demo"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=10 * LIVENESS_S, check=False
        )
    assert done.returncode == Exit.FAILURE
    assert done.stderr == "splitcast: No space left on device\n"
