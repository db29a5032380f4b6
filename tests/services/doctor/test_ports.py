"""The port that a service is to listen on."""

from __future__ import annotations

import subprocess
import sys

import pytest

from services.doctor.ports import Holder, find_holder, look_at_port
from tests.ports import free_port

LISTEN = """
import socket, sys
with socket.socket() as listener:
    listener.bind(("127.0.0.1", int(sys.argv[1])))
    listener.listen()
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def taken():
    """A port that another program has, and that program's number."""
    port = free_port()
    with subprocess.Popen(
        [sys.executable, "-c", LISTEN, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as program:
        assert program.stdout
        program.stdout.readline()
        yield port, program.pid
        program.kill()


def test_a_free_port():
    assert look_at_port("127.0.0.1", free_port(), "detector").level == "ok"
    assert look_at_port("127.0.0.1", 0, "detector").level == "ok"


def test_a_port_that_another_program_has(taken):
    port, pid = taken
    assert find_holder(port).pid == pid
    finding = look_at_port("127.0.0.1", port, "camera", "--metrics-")
    assert finding.level == "error"
    assert f"(pid {pid})" in finding.measured
    assert "--metrics-port" in finding.advice


def test_a_port_that_the_service_itself_has(taken, monkeypatch):
    port, pid = taken
    holder = Holder(pid, ("/usr/bin/python3", "/opt/bin/splitcast", "detector", "--port", str(port)))
    monkeypatch.setattr("services.doctor.ports.find_holder", lambda asked: holder)
    assert look_at_port("127.0.0.1", port, "detector").level == "warning"
    assert look_at_port("127.0.0.1", port, "camera").level == "error"


def test_an_address_of_another_machine():
    finding = look_at_port("192.0.2.1", free_port(), "detector")
    assert (finding.level, finding.advice) == ("error", "give --host an address of this machine, or 0.0.0.0")


LISTENS, CONNECTED = "0A", "01"


@pytest.mark.parametrize(
    ("table", "address", "state", "pid"),
    [
        ("tcp", "0100007F:1F90", LISTENS, 42),
        ("tcp6", f"{'0' * 32}:1F90", LISTENS, 42),
        (
            "tcp",
            "0100007F:1F90",
            CONNECTED,
            None,
        ),  # the holder's connection to somebody, and not what keeps it
        ("tcp", "0100007F:1F91", LISTENS, None),
    ],
)
def test_the_holder_is_who_listens(tmp_path, table, address, state, pid):
    (tmp_path / "net").mkdir()
    line = f"0: {address} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000 0 0 77 1"
    (tmp_path / "net" / table).write_text(f"sl local_address rem_address st\n{line}\n")
    (tmp_path / "42/fd").mkdir(parents=True)
    (tmp_path / "42/fd/3").symlink_to("socket:[77]")
    (tmp_path / "42/cmdline").write_bytes(b"/usr/bin/python3\0-m\0http.server\0")
    holder = find_holder(8080, tmp_path)
    assert holder == (Holder(42, ("/usr/bin/python3", "-m", "http.server")) if pid else None)


def test_who_holds_a_port_is_not_always_known(tmp_path):
    assert find_holder(free_port()) is None
    assert find_holder(80, tmp_path) is None
