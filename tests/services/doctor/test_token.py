"""Tokens that are taken, and others; none is ever shown."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest

from services.access.token_editing import add_token
from services.access.token_file import TokenEntry
from services.access.tokens import new_token, token_hash
from services.doctor.settings import DoctorCameraSettings, DoctorDetectorSettings
from services.doctor.token import look_at_own_token, look_at_tokens
from services.errors import SettingsError


@pytest.fixture
def tokens(tmp_path) -> Path:
    return tmp_path / "tokens.toml"


@pytest.fixture
def make_token(tokens, tmp_path):
    """Makes a token of a role, and the file that its owner has."""

    def make(role: str, stream: str = "door", *, known: bool = True) -> Path:
        token = new_token()
        if known:
            roles, streams = (role,), (stream,)
            add_token(tokens, TokenEntry(name=role, hash=token_hash(token), roles=roles, streams=streams))
        file = tmp_path / f"{role}.token"
        file.write_text(f"{token}\n")
        file.chmod(0o600)
        return file

    return make


async def look(url: str, token_file: Path | None):
    given = {"token_file": str(token_file), "insecure": True} if token_file else {}
    finding = await look_at_own_token(
        DoctorCameraSettings.load({"source": "demo", "detector": url, "stream": "door", **given})
    )
    assert "spc_" not in repr(finding)
    return finding


async def test_a_good_token(start_detector, make_token, tokens):
    file = make_token("camera")
    async with start_detector(tokens=str(tokens)) as running:
        finding = await look(running.url, file)
        assert (finding.level, finding.facts["role"]) == ("ok", "camera")
        file.chmod(0o644)
        finding = await look(running.url, file)
        assert (finding.level, f"chmod 600 {file}" in finding.advice) == ("warning", True)


@pytest.mark.parametrize(
    ("role", "words"),
    [("camera", "does not know it (401)"), ("consumer", "does not let it send 'door' (403)")],
)
async def test_a_token_that_is_not_taken(start_detector, make_token, tokens, role, words):
    make_token("metrics")
    file = make_token(role, known=role != "camera")
    async with start_detector(tokens=str(tokens)) as running:
        finding = await look(running.url, file)
    assert (finding.level, words in finding.measured) == ("error", True)
    assert "splitcast token create door --role camera" in finding.advice


async def test_no_token(start_detector, make_token, tokens):
    make_token("camera")
    async with start_detector(tokens=str(tokens)) as running:
        finding = await look(running.url, None)
    assert (finding.level, finding.advice.startswith("--token-file FILE")) == ("error", True)


async def test_a_detector_that_asks_for_none(start_detector, make_token):
    file = make_token("camera")
    async with start_detector() as running:
        assert (await look(running.url, None)).level == "ok"
        finding = await look(running.url, file)
    assert (finding.level, "asks for none" in finding.measured) == ("warning", True)


async def test_a_token_by_a_name_that_the_detectors_page_does_not_have(
    start_detector, make_token, tokens, monkeypatch
):
    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda _host, *how, **more: resolve("127.0.0.1", *how, **more))
    file = make_token("camera")
    async with start_detector(tokens=str(tokens)) as running:
        finding = await look(f"ws://balancer.example:{running.port}", file)
    assert (finding.level, finding.facts.get("role")) == ("ok", "camera")


async def test_a_file_that_holds_none(start_detector, tmp_path):
    (tmp_path / "door.token").write_text("secret")
    with pytest.raises(SettingsError, match="holds no token"):
        await look("ws://127.0.0.1:1", tmp_path / "door.token")


def test_a_detectors_tokens(make_token, tokens):
    def look(**given):
        return look_at_tokens(DoctorDetectorSettings.load({"tokens": str(tokens), **given}))

    with pytest.raises(SettingsError, match="cannot read"):
        look()
    tokens.write_text("")
    assert look().level == "warning"
    make_token("consumer")
    assert (look().level, "none is for a camera" in look().measured) == ("warning", True)
    make_token("camera")
    finding = look()
    assert (finding.level, finding.facts["roles"]) == ("ok", {"camera": 1, "consumer": 1})
    tokens.chmod(tokens.stat().st_mode | stat.S_IWOTH)
    with pytest.raises(SettingsError, match="anybody may write"):
        look()
    assert look_at_tokens(DoctorDetectorSettings.load({})).level == "ok"
