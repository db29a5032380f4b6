"""Logs as a service writes them: a process of its own, whose standard error is read."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.services.waiting import LIVENESS_S

URL = "rtsp://admin:hunter2@camera/live"
SHOWN = "rtsp://***@camera/live"

PROGRAM = """
import logging, sys, warnings
import structlog
from services.logs import LogSettings, configure_logs

style, url = sys.argv[1:]
configure_logs(LogSettings(style, "info"))
log = structlog.get_logger("test")

def fail():
    raise ValueError(f"cannot open {url}")

"""


def written(style: str, *lines: str) -> str:
    """What these lines of a program write to standard error."""
    program = PROGRAM + "\n".join(lines)
    command = [sys.executable, "-c", program, style, URL]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=LIVENESS_S).stderr


@pytest.mark.parametrize("style", ["json", "text"])
@pytest.mark.parametrize(
    "lines",
    [
        ["log.info(f'cannot open {url}')"],
        ["log.info('lost', source=url)"],
        ["log.info('lost', source=[1, {'a': (url, 'b')}])"],
        ["log.info('lost', **{url: 1})"],
        ["log.info('lost', error=ValueError(url))"],
        ["log.info('lost', source=type('Unknown', (), {'__repr__': lambda self: url})())"],
        ["try: fail()", "except ValueError: log.exception('lost')"],
        ["try: fail()", "except ValueError as error: log.error('lost', exc_info=error)"],
        ["logging.getLogger('aiohttp').warning('cannot open %s', url)"],
        ["logging.getLogger('aiohttp').warning('lost', extra={'source': [url]})"],
        ["try: fail()", "except ValueError: logging.getLogger('asyncio').exception('lost')"],
        ["warnings.warn(f'cannot open {url}')"],
    ],
    ids=lambda lines: lines[-1],
)
def test_no_password_is_written(style, lines):
    output = written(style, *lines)
    assert "hunter2" not in output
    assert SHOWN in output
    if style == "json":
        (line,) = output.splitlines()
        assert json.loads(line)["level"] in ("info", "warning", "error")


def test_json_stays_json_whatever_it_contains():
    output = written(
        "json",
        r"""log.info('quote " and \\ and é', address='http://h/?password=a"b&x=1', after=[url, None, 1.5, '"'])""",
    )
    entry = json.loads(output)
    assert entry["event"] == 'quote " and \\ and é'
    assert entry["address"] == "http://h/?password=***&x=1"
    assert entry["after"] == [SHOWN, None, 1.5, '"']


def test_a_traceback_is_written_whole():
    entry = json.loads(written("json", "try: fail()", "except ValueError: log.exception('lost')"))
    assert entry["exception"].startswith("Traceback (most recent call last):\n")
    assert entry["exception"].endswith(f"ValueError: cannot open {SHOWN}")


SERVER = """
import asyncio
from aiohttp import web

async def ask(request):
    async def fail_at_home(_):
        raise ValueError("a defect of ours")
    app = web.Application()
    app.router.add_get("/", fail_at_home)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    reader, writer = await asyncio.open_connection(*runner.addresses[0])
    writer.write(request)
    print((await reader.readline()).decode())
    writer.close()
    await runner.cleanup()

"""
MALFORMED = [
    b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: here\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: here\r\nContent-Length: \x1b[2Jnone\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 TLS\r\n\r\n",
]


@pytest.mark.parametrize("request_", MALFORMED, ids=["long URL", "no Host", "bad header", "TLS"])
def test_a_malformed_request_writes_no_traceback(request_):
    ask = [*SERVER.splitlines(), f"asyncio.run(ask({request_!r}))"]
    assert written("text", *ask) == ""
    output = written("json", "logging.getLogger().setLevel(logging.DEBUG)", *ask)
    (entry,) = [
        entry for entry in map(json.loads, output.splitlines()) if entry["logger"] == "aiohttp.server"
    ]
    assert entry["level"] == "debug"
    assert entry["event"].startswith("malformed request: ")
    assert len(entry["event"]) < 300
    assert entry["event"].isprintable()
    assert "exception" not in entry


CREDENTIALS = [
    b"GET / HTTP/1.1\r\nHost: here\r\nCookie: splitcast=hunter2\x01\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: here\r\nAuthorization: Basic hunter2\x01\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: here\r\nCookie: splitcast=hunter2" + b"a" * 9000 + b"\r\n\r\n",
    b"GET /?a=hunter2 HTTP/9\r\n\r\n",
]


@pytest.mark.parametrize("request_", CREDENTIALS, ids=["cookie", "authorization", "long cookie", "URL"])
def test_a_malformed_request_is_not_quoted(request_):
    output = written(
        "json",
        "logging.getLogger().setLevel(logging.DEBUG)",
        *SERVER.splitlines(),
        f"asyncio.run(ask({request_!r}))",
    )
    assert "malformed request: " in output
    assert "hunter2" not in output


def test_a_defect_in_a_handler_writes_its_traceback():
    request = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"
    entry = json.loads(written("json", *SERVER.splitlines(), f"asyncio.run(ask({request!r}))"))
    assert entry["level"] == "error"
    assert "a defect of ours" in entry["exception"]


def test_text_is_for_people():
    output = written("text", "log.info('source open', width=320)")
    assert "source open" in output
    assert len(output.splitlines()) == 1


STRANGER = r"'a\nb\x1b[2J\ud800'"


@pytest.mark.parametrize(
    "line",
    [
        f"log.warning('lost', reason={STRANGER})",
        f"log.warning({STRANGER})",
        f"log.warning('lost', **{{{STRANGER}: 1}})",
        f"log.warning('lost', names=[{STRANGER}])",
        f"logging.getLogger('aiohttp').warning('lost %s', {STRANGER})",
    ],
)
def test_text_of_strangers_is_escaped(line):
    output = written("text", line)
    assert len(output.splitlines()) == 1
    assert "\x1b[2J" not in output
    assert "x1b[2J" in output
    (entry,) = map(json.loads, written("json", line).splitlines())
    text = json.dumps(entry, ensure_ascii=False)
    assert "[2J" in text
    text.encode()  # no half of a pair, which other readers refuse


def test_a_traceback_of_a_stranger_moves_no_cursor():
    output = written("text", f"try: raise ValueError({STRANGER})", "except ValueError: log.exception('lost')")
    assert "\x1b[2J" not in output
    assert "ValueError: a\nb\\x1b[2J\\ud800" in output


def test_numbers_that_json_does_not_know_are_texts():
    (line,) = written("json", "log.info('rate', fps=[float('nan'), float('inf'), 1.5])").splitlines()
    assert json.loads(line, parse_constant=pytest.fail)["fps"] == ["NaN", "Infinity", 1.5]


REPEATED = ["for n in range(5): log.warning('packet rejected', stream='door', reason='corrupt', sequence=n)"]


def test_a_service_counts_lines_that_repeat_others():
    quiet = "configure_logs(LogSettings('json', 'info', repeats=False))"
    entries = [json.loads(line) for line in written("json", quiet, *REPEATED).splitlines()]
    assert [(entry["sequence"], entry.get("repeated")) for entry in entries] == [(0, None), (4, 4)]
    entries = [json.loads(line) for line in written("json", *REPEATED).splitlines()]
    assert len(entries) == 5


def test_a_count_of_foreign_lines_is_told():
    quiet = "configure_logs(LogSettings('json', 'info', repeats=False))"
    lines = written(
        "json", quiet, "for _ in range(9): logging.getLogger('asyncio').error('lost')"
    ).splitlines()
    assert [json.loads(line).get("repeated") for line in lines] == [None, 8]


def test_a_thread_that_fails_is_a_line_of_the_log():
    lines = written(
        "json",
        "import threading",
        "from services.logs import log_failed_thread",
        "threading.excepthook = log_failed_thread",
        "thread = threading.Thread(target=fail, name='worker')",
        "thread.start(); thread.join()",
    ).splitlines()
    (entry,) = map(json.loads, lines)
    assert (entry["event"], entry["thread"], entry["level"]) == ("thread failed", "worker", "error")
    assert entry["exception"].endswith(f"ValueError: cannot open {SHOWN}")


@pytest.mark.parametrize("style", ["json", "text"])
def test_that_a_line_is_an_event_of_its_own_is_not_shown(style):
    output = written(
        style,
        "from services.repeats import OWN_EVENT",
        "for _ in range(2): log.info('reloaded', **OWN_EVENT)",
    )
    assert output.count("reloaded") == 2
    assert "own_event" not in output


def test_what_python_can_only_tell_is_a_line_of_the_log():
    """A finalizer's error, in place of a traceback that shows a password."""
    lines = written(
        "json",
        "from services.logs import log_unraisable",
        "sys.unraisablehook = log_unraisable",
        "one = type('Source', (), {'__del__': lambda self: fail()})()",
        "del one",
    ).splitlines()
    (entry,) = map(json.loads, lines)
    assert (entry["event"], entry["level"]) == ("error ignored", "error")
    assert entry["exception"].endswith(f"ValueError: cannot open {SHOWN}")


def test_commands_tell_it_so():
    program = (
        "import sys, services.cli as cli, services.logs as logs\n"
        "def main():\n"
        "    logs.configure_logs(logs.LogSettings())\n"
        "    def fail(self): raise ValueError(sys.argv[-1])\n"
        "    one = type('Source', (), {'__del__': fail})()\n"
        "    del one\n"
        "    return 0\n"
        "cli.main = main\n"
        "cli.run()\n"
    )
    command = [sys.executable, "-c", program, "watch", URL]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=LIVENESS_S)
    assert "hunter2" not in done.stderr
    assert SHOWN in done.stderr
