from __future__ import annotations

import errno
import os
import re
import stat

import pytest
from structlog.testing import capture_logs

from services.camera import session_secret
from services.camera.session_secret import SessionSecret, state_folder


def test_is_kept_over_a_restart(tmp_path):
    first = SessionSecret("door", tmp_path)
    first.close()
    second = SessionSecret("door", tmp_path)
    assert second.text == first.text
    assert re.fullmatch("[0-9a-f]{32}", first.text)
    second.close()


def test_only_its_owner_may_read_it(tmp_path):
    SessionSecret("door", tmp_path / "new").close()
    file = tmp_path / "new" / "door.session"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_a_second_camera_of_the_name_is_another(tmp_path):
    first, second = SessionSecret("door", tmp_path), SessionSecret("door", tmp_path)
    other = SessionSecret("yard", tmp_path)
    assert len({first.text, second.text, other.text}) == 3
    second.close()
    first.close()
    third = SessionSecret("door", tmp_path)
    assert third.text == first.text  # what the second had is kept nowhere
    third.close()


@pytest.mark.parametrize("content", [b"", b"deadbeef", b"\xff" * 32, b"A" * 32, b"0" * 10**6])
def test_what_is_no_secret_is_replaced(tmp_path, content):
    (tmp_path / "door.session").write_bytes(content)
    first = SessionSecret("door", tmp_path)
    first.close()
    second = SessionSecret("door", tmp_path)
    assert second.text == first.text
    second.close()


def test_a_full_disk_costs_only_the_keeping(tmp_path, monkeypatch):
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched, capture_logs() as logs:
        patched.setattr(os, "pwrite", full)
        secret = SessionSecret("door", tmp_path)
    assert [entry["log_level"] for entry in logs] == ["warning"]
    assert "No space left" in logs[0]["reason"]
    assert secret.text not in str(logs)
    with capture_logs() as logs:  # no other camera runs here: the file was let go of
        SessionSecret("door", tmp_path).close()
    assert logs == []


def test_no_folder_costs_only_the_keeping(tmp_path):
    (tmp_path / "file").touch()
    with capture_logs() as logs:
        first, second = (SessionSecret("door", tmp_path / "file") for _ in range(2))
    assert first.text != second.text
    assert [entry["log_level"] for entry in logs] == ["warning"] * 2


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "door.session").symlink_to(tmp_path / "elsewhere")
    with capture_logs() as logs:
        SessionSecret("door", tmp_path)
    assert len(logs) == 1
    assert not (tmp_path / "elsewhere").exists()


def test_lies_where_state_lies(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    SessionSecret("door").close()
    assert (tmp_path / "splitcast" / "door.session").exists()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_STATE_HOME", value)
        assert state_folder() == tmp_path / "home" / ".local" / "state"


def test_a_machine_without_homes(monkeypatch):
    def homeless() -> None:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setattr(session_secret.Path, "home", homeless)
    with capture_logs() as logs:
        assert SessionSecret("door").text
    assert len(logs) == 1
