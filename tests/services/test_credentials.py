"""Credentials in what is shown: settings of every command, errors, defects, reprs, requests that are not HTTP."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from contextlib import suppress

import pytest

from services.cli import COMMANDS, Command, main
from services.command_settings import CommandSettings
from stream.session.messages import Hello, Waiting
from stream.sources.cameras import explain
from stream.sources.capture_messages import CaptureRequest
from tests.services.waiting import LIVENESS_S

SECRET = "hunter2"
TOKEN = "spc_" + 43 * "A"
GIVEN = (f"rtsp://user:{SECRET}@camera.example/stream", f"http://host/?token={SECRET}", TOKEN)
NEEDED = {"name": "all", "link_kbps": 1, "to": "127.0.0.1:1", "listen": "127.0.0.1:0"}  # else "x"


def hidden(text: str) -> bool:
    return SECRET not in text and TOKEN not in text


def settings_of(name: str) -> type[CommandSettings]:
    module, _, kind = COMMANDS[name].settings.partition(":")
    found: type[CommandSettings] = getattr(importlib.import_module(module), kind)
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_no_setting_shows_a_credential(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever is given for any of them, neither the error nor the settings' repr and str show it."""
    kind = settings_of(name)
    monkeypatch.setattr(Command, "parse", lambda self, arguments, name: kind.load(json.loads(arguments[0])))
    monkeypatch.setattr(
        Command, "__call__", lambda self, settings, name: print(repr(settings), settings) or 0
    )
    fields = {field.alias or name: field for name, field in kind.model_fields.items()}
    needed = {name: NEEDED.get(name, "x") for name, field in fields.items() if field.is_required()}
    if "data" in fields:
        needed["data"] = "x"
    assert main([*name.split(), json.dumps(needed)]) == 0
    assert kind.__name__ in capsys.readouterr().out
    for field in fields:
        for value in GIVEN:
            for given in (value, [value]):
                main([*name.split(), json.dumps({**needed, field: given})])
                shown = "".join(capsys.readouterr())
                assert shown
                assert hidden(shown), field


@pytest.mark.parametrize("value", GIVEN)
@pytest.mark.parametrize("before", [(), ("bench",), ("camera",), ("watch", "--count"), ("points", "--x")])
def test_what_is_in_the_wrong_place_is_told_without_its_credentials(
    before: tuple[str, ...], value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with suppress(SystemExit):
        main([*before, value])
    told = capsys.readouterr().err
    assert told
    assert hidden(told)


def test_the_traceback_of_a_defect_shows_none() -> None:
    """What ends the interpreter, as it is written on standard error."""
    program = f"""
from services import cli
def broken(*_): raise KeyError("{GIVEN[0]}", "{TOKEN}")
cli.main = broken
cli.run()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=LIVENESS_S, check=False
    )
    assert done.returncode == 1
    assert "KeyError: " in done.stderr
    assert "in broken" in done.stderr
    assert "rtsp://***@camera.example" in done.stderr.splitlines()[-1]
    assert hidden(done.stderr.splitlines()[-1])


def test_a_complaint_is_cut_only_once_its_credentials_are_hidden() -> None:
    """Half a URL does not tell where its password ends."""
    target = f"rtsp://user:{SECRET}@host/stream"
    complaint = f"{'x' * 180} {target}"
    request = CaptureRequest(target, is_device=False, open_timeout_s=5.0, rtsp_transport="tcp")
    assert SECRET in complaint[:200]
    assert hidden(explain(request, 0.1, complaint))
    assert hidden(repr(request))


def test_the_session_is_in_no_repr() -> None:
    secret = "0123456789abcdef" * 2
    waiting = Waiting(stream="a", session=secret, source="0", source_state="open")
    hello = Hello.model_construct(stream="a", session=secret)
    for message in (waiting, hello):
        assert secret not in repr(message)
        assert secret not in str(message)
        assert secret in message.text()
