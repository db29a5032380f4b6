"""Folders that are kept: one that takes files, and those that do not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from codec import jit
from services.doctor import folders
from services.doctor.folders import look_at_folder, look_at_kernels, look_at_sessions, look_at_weights_cache
from tests.services.waiting import LIVENESS_S

LOOK = """
import sys
from pathlib import Path
from services.doctor.folders import look_at_folder
finding = look_at_folder(Path(sys.argv[1]), 8, "another --cache", needed=True)
print(finding.level, finding.measured, list(Path(sys.argv[1]).iterdir()))
"""


def mounted(folder: Path, options: str, prepare: str = "true") -> str:
    """What is found of a folder on a file system that is mounted for one process."""
    if subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    script = (
        f'mount -t tmpfs -o size=64k none "$0" && {prepare} && mount -o remount,{options} "$0" && exec "$@"'
    )
    looked = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, str(folder), sys.executable, "-c", LOOK, str(folder)],
        capture_output=True,
        text=True,
        timeout=LIVENESS_S,
        check=True,
    )
    return looked.stdout


def test_a_folder_that_can_be_written_to_is_left_as_it_was(tmp_path):
    finding = look_at_folder(tmp_path, 1, "another", needed=True)
    assert (finding.level, list(tmp_path.iterdir())) == ("ok", [])
    assert look_at_folder(tmp_path / "not" / "there", 1, "another", needed=True).level == "ok"


def test_a_folder_with_little_room(tmp_path, monkeypatch):
    monkeypatch.setattr(folders.shutil, "disk_usage", lambda path: type("usage", (), {"free": 3 * 2**20}))
    finding = look_at_folder(tmp_path, 8, "another --cache", needed=True)
    assert (finding.level, finding.advice) == ("warning", "make room, or another --cache")
    assert "has 3 MiB free, and may need 8" in finding.measured


def test_a_full_disk(tmp_path):
    told = mounted(tmp_path, "rw", 'head -c 60k /dev/zero >"$0/ballast"')
    assert told.startswith("error")
    assert "is on a full disk" in told
    assert "splitcast-doctor" not in told.partition("[")[2]


@pytest.mark.parametrize(("needed", "level"), [(True, "error"), (False, "warning")])
def test_only_a_folder_that_is_needed_is_an_error(tmp_path, monkeypatch, needed, level):
    def refuse(folder):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(folders, "_write_to", refuse)
    assert look_at_folder(tmp_path, 1, "another", needed=needed).level == level


def test_a_read_only_folder(tmp_path):
    told = mounted(tmp_path, "ro")
    assert told.startswith("error")
    assert "cannot be written to: Read-only file system" in told


def test_weights_that_are_there_need_no_room(tmp_path, monkeypatch):
    def refuse(folder):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(folders, "_write_to", refuse)
    assert look_at_weights_cache(tmp_path / "yolov5n.pt").level == "error"
    (tmp_path / "yolov5n.pt").touch()
    assert look_at_weights_cache(tmp_path / "yolov5n.pt").level == "ok"


def test_sessions_that_cannot_be_kept(tmp_path):
    def homeless() -> Path:
        raise RuntimeError("there is no home")

    assert look_at_sessions(lambda: tmp_path).level == "ok"
    assert look_at_sessions(homeless).level == "warning"


def test_kernels(monkeypatch, tmp_path):
    assert look_at_kernels().level == "ok"
    monkeypatch.setattr(jit, "kernel_folders", lambda: jit.KernelFolders(tmp_path, tmp_path, 0))
    finding = look_at_kernels()
    assert (finding.level, "takes a minute longer" in finding.measured) == ("ok", True)
    monkeypatch.setattr(jit, "kernel_folders", lambda: None)
    finding = look_at_kernels()
    assert (finding.level, "NUMBA_CACHE_DIR" in finding.advice) == ("warning", True)
