"""Credentials in what is shown: settings of every command, errors, defects, reprs, requests that are not HTTP."""

from __future__ import annotations

import asyncio
import importlib
import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from aiohttp import ClientSession, CookieJar

from services.access.tokens import new_token, token_hash
from services.camera.session_secret import state_folder
from services.cli import COMMANDS, Command, main
from services.command_settings import CommandSettings
from stream.session.messages import Hello, Waiting
from stream.sources.cameras import explain
from stream.sources.capture_messages import CaptureRequest
from tests.services.detector.test_gate import bearer, entry
from tests.services.waiting import LIVENESS_S, until

SECRET = "hunter2"
TOKEN = "spc_" + 43 * "A"
GIVEN = (f"rtsp://user:{SECRET}@camera.example/stream", f"http://host/?token={SECRET}", TOKEN)
NEEDED = {
    "name": "all",
    "link_kbps": 1,
    "role": ["metrics"],
    "to": "127.0.0.1:1",
    "listen": "127.0.0.1:0",
}  # else "x"


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


async def test_neither_logs_nor_answers_show_those_that_are_in_use(
    start_detector, make_camera, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A camera, a scrape, a consumer and a browser come with their tokens, and all that is said is looked through."""
    tokens = {role: new_token() for role in ("camera", "consumer", "metrics", "page")}
    listed = "".join(entry(role, token, role, "door") for role, token in tokens.items() if role != "metrics")
    own = tmp_path / "door.token"
    own.write_text(tokens["camera"])
    answers = []
    async with (
        start_detector(tokens=listed + entry("scrape", tokens["metrics"], "metrics")) as running,
        ClientSession(cookie_jar=CookieJar(unsafe=True)) as browser,
    ):
        camera = make_camera(running.url, token_file=own, loop=True, realtime=True)
        task = asyncio.ensure_future(camera.run())
        await until(lambda: camera.statistics.frame_counts.detected)
        session = (state_folder() / "splitcast" / "door.session").read_text().strip()
        form = {"data": {"token": tokens["page"]}, "headers": {"Origin": running.http}}
        async with browser.post(f"{running.http}/login", **form) as page:
            answers.append(await page.text())
        [cookie] = [morsel.value for morsel in browser.cookie_jar]
        for path in ("/", "/v1/streams", "/v1/streams/door", "/nowhere", "/login?wrong"):
            async with browser.get(running.http + path) as page:
                answers.append(await page.text())
        async with browser.ws_connect(f"{running.http}/v1/detections") as messages:
            answers += [await messages.receive_str() for _ in range(3)]
        for role, path in (("metrics", "/metrics"), ("consumer", "/v1/streams"), ("camera", "/metrics")):
            async with ClientSession(headers=bearer(tokens[role])) as script:
                answers.append(await (await script.get(running.http + path)).text())
        answers += [
            repr(camera),
            repr(running.detector),
            str((await camera.statistics.metrics.handle(None)).body),
        ]
        camera.stop()
        await asyncio.wait_for(task, LIVENESS_S)
    shown = "".join(capsys.readouterr()) + "".join(answers)
    assert '"door"' in shown
    assert "camera connected" in shown or "request refused" in shown, "the logs are looked through, too"
    assert 'name="token"' not in answers[1], "the page, and not the form"
    secrets = [*tokens.values(), *map(token_hash, tokens.values()), session, cookie]
    assert not [secret for secret in secrets if secret in shown]
