"""Where a camera and `splitcast watch` have their token from, and where they send it."""

from __future__ import annotations

import os

import pytest

from services.access.tokens import new_token
from services.camera.settings import CameraSettings
from services.commands.settings import WatchSettings
from services.commands.watch import run_watch
from services.errors import SettingsError
from services.own_token import current_headers, token_headers
from stream.errors import ConnectionLost

TOKEN = new_token()
BEARER = {"Authorization": f"Bearer {TOKEN}"}
FAR = "ws://detector.example:8765"


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "door.token"
    file.write_text(f"{TOKEN}\n")
    return file


@pytest.fixture(params=["camera", "watch"])
def load(request):
    """Settings of either, for a detector on this machine."""

    def load(**given):
        if request.param == "camera":
            return CameraSettings.load({"source": "demo", "metrics_port": 0, **given})
        return WatchSettings.load(given)

    return load


def test_without_a_token_nothing_is_sent(load):
    assert token_headers(load()) == {}


def test_a_token_comes_from_a_file_or_the_environment(load, file, monkeypatch):
    assert token_headers(load(token_file=file)) == BEARER
    monkeypatch.setenv("SPLITCAST_TOKEN", TOKEN)
    assert token_headers(load()) == BEARER
    with pytest.raises(SettingsError, match="--token-file: SPLITCAST_TOKEN is set too"):
        load(token_file=file)


@pytest.mark.parametrize(
    ("settings", "needed"), [(CameraSettings, ["--source", "demo"]), (WatchSettings, [])]
)
def test_a_token_is_no_flag(settings, needed, capsys):
    """Everybody on a machine sees those."""
    with pytest.raises(SettingsError, match=r"revoke it") as error:
        settings.parse([*needed, "--token", TOKEN], "splitcast", "")
    assert TOKEN not in str(error.value)
    with pytest.raises(SystemExit):
        settings.parse(["--help"], "splitcast", "")
    assert "--token-file" in (told := capsys.readouterr().out)
    assert "--token " not in told


def test_a_token_is_in_no_text_of_its_settings(load, monkeypatch):
    monkeypatch.setenv("SPLITCAST_TOKEN", TOKEN)
    settings = load()
    assert TOKEN not in f"{settings} {settings!r} {settings.model_dump()} {settings.model_dump_json()}"


@pytest.mark.parametrize("text", ["", TOKEN[:-1], f"{TOKEN}\n{TOKEN}", "hunter2", "\xff" * 1000])
def test_what_is_no_token_is_told_and_not_shown(load, file, text, monkeypatch):
    file.write_text(text)
    with pytest.raises(SettingsError, match=r"--token-file: .* holds no token") as error:
        load(token_file=file).check_machine()
    assert not text or text not in str(error.value)
    if text:
        monkeypatch.setenv("SPLITCAST_TOKEN", text)
        with pytest.raises(SettingsError, match="SPLITCAST_TOKEN: is no token") as error:
            load()
        assert text not in str(error.value)


def test_a_large_file_is_not_read_whole(load, file):
    """A hole of a TiB, which no memory holds."""
    os.truncate(file, 2**40)
    with pytest.raises(SettingsError, match="holds no token"):
        token_headers(load(token_file=file))


def test_a_file_that_is_not_there_is_told_before_anything_starts(load, tmp_path):
    with pytest.raises(SettingsError, match=r"--token-file: cannot read .*No such file"):
        load(token_file=tmp_path / "none").check_machine()


async def test_the_file_is_read_for_each_connection(load, file):
    """A new token needs no restart; a file that is being written costs an attempt."""
    settings = load(token_file=file)
    assert await current_headers(settings) == BEARER
    file.write_text(other := new_token())
    assert await current_headers(settings) == {"Authorization": f"Bearer {other}"}
    file.write_text("")
    with pytest.raises(ConnectionLost, match="holds no token"):
        await current_headers(settings)


@pytest.mark.parametrize("given", ["file", "variable"])
def test_no_token_goes_over_a_network_that_could_read_it(file, given, monkeypatch):
    if given == "variable":
        monkeypatch.setenv("SPLITCAST_TOKEN", TOKEN)
    token = {"token_file": file} if given == "file" else {}
    camera = {"source": "demo", "detector": FAR, **token}
    with pytest.raises(SettingsError, match=r"token.* unencrypted.*wss://.*--insecure") as error:
        CameraSettings.load(camera)
    assert TOKEN not in str(error.value)
    assert token_headers(CameraSettings.load({**camera, "insecure": True})) == BEARER
    for safe in ("wss://detector.example", "ws://127.0.0.1:1", "ws://[::1]:1", "ws://localhost:1"):
        assert token_headers(CameraSettings.load({**camera, "detector": safe})) == BEARER


def test_watch_sends_none_there_either(file, monkeypatch):
    asked: list[object] = []
    monkeypatch.setattr("asyncio.run", lambda watching: (asked.append(watching), watching.close()))
    with pytest.raises(SettingsError, match=r"token.* unencrypted.*--insecure"):
        run_watch(WatchSettings.load({"url": (FAR,), "token_file": file}))
    with pytest.raises(SettingsError, match=r"token.* unencrypted.*--insecure"):
        run_watch(WatchSettings.load({"url": ("wss://detector.example", FAR), "token_file": file}))
    with pytest.raises(SettingsError, match="user and password"):
        run_watch(WatchSettings.load({"url": ("wss://me:secret@host",), "token_file": file}))
    assert not asked
    for given in ({"url": (FAR,), "insecure": True}, {"url": ("wss://detector.example",)}, {}):
        run_watch(WatchSettings.load({**given, "token_file": file}))
    assert len(asked) == 3


def test_a_token_and_a_password_do_not_go_together(file):
    with pytest.raises(SettingsError, match="user and password"):
        CameraSettings.load({"source": "demo", "token_file": file, "detector": "wss://me:secret@host"})
