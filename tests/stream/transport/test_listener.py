from __future__ import annotations

import socket
import subprocess
import sys
from contextlib import ExitStack

import pytest

from stream.transport.listener import AcceptedSocket, Listener
from stream.transport.websocket import CountingSocket
from tests.services.waiting import LIVENESS_S


@pytest.fixture
def listener():
    with Listener.bound("127.0.0.1", 0, max_connections=2) as listener:
        yield listener


def connect(listener: Listener) -> CountingSocket:
    connection = CountingSocket(socket.AF_INET, socket.SOCK_STREAM)
    connection.settimeout(LIVENESS_S)
    connection.connect(listener.getsockname())
    return connection


def test_both_ends_count_what_passes(listener):
    with connect(listener) as here:
        there, address = listener.accept()
        with there:
            assert address == here.getsockname()
            count = here.send(b"12345")
            there.settimeout(LIVENESS_S)
            buffer = bytearray(16)
            assert here.wire.sent == count == 5
            assert there.recv_into(buffer) == there.wire.received == 5
            there.send(b"123")
            assert len(here.recv(4096)) == here.wire.received == there.wire.sent == 3


def test_connections_beyond_the_limit_are_refused(listener):
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(listener)) for _ in range(3)]
        accepted = [stack.enter_context(listener.accept()[0]) for _ in range(2)]
        with pytest.raises(ConnectionAbortedError):
            listener.accept()
        assert clients[2].recv(1) == b""
        accepted[0].close()
        assert len(listener.accepted) == 1
        stack.enter_context(connect(listener))
        stack.enter_context(listener.accept()[0])


def test_a_process_without_files_closes_connections_and_waits_for_none():
    """In a process of its own, whose limit is low."""
    program = """
import asyncio, logging, resource, socket, sys
from stream.transport.listener import Listener

logging.basicConfig(level="WARNING")
files = 24

async def main():
    refused = []
    listener = Listener.bound("127.0.0.1", 0, 1000, on_refuse=lambda: refused.append(1))
    listener.setblocking(False)
    server = await asyncio.start_server(lambda reader, writer: None, sock=listener)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    address = listener.getsockname()
    print(address[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    print(len(refused), len(listener.accepted), flush=True)

asyncio.run(main())
"""
    with (
        subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
        ExitStack() as stack,
    ):
        assert process.stdout
        port = int(process.stdout.readline())
        clients = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), LIVENESS_S)) for _ in range(60)
        ]
        for client in reversed(clients[24:]):  # more than there are files
            assert client.recv(1) == b""
        out, log = process.communicate("\n", timeout=LIVENESS_S)
    refused, accepted = map(int, out.split())
    assert refused + accepted == 60
    assert 0 < accepted < 24
    assert "Traceback" not in log
    assert log.count("connection refused: Too many open files") == refused


def test_closing_late_forgets_no_newer_connection(listener):
    """A port is free for another peer as soon as its connection is down, before our side has closed it."""
    with connect(listener) as here, socket.socket() as plain:
        old, address = listener.accept()
        with AcceptedSocket(plain, listener, address, accepted_ns=0) as newer:
            listener.accepted[address] = newer
            old.close()
            assert listener.accepted == {address: newer}
        assert listener.accepted == {}
        assert here.fileno() >= 0


def test_silent_connections_are_shut_down(listener):
    with ExitStack() as stack:
        silent, requesting = (stack.enter_context(connect(listener)) for _ in range(2))
        ends = [stack.enter_context(listener.accept()[0]) for _ in range(2)]
        ends[1].has_requested = True
        listener.close_silent(accepted_before_ns=ends[1].accepted_ns + 1)
        assert silent.recv(1) == b""
        ends[1].send(b"x")
        assert requesting.recv(1) == b"x"


def test_new_connections_have_time_to_say_something(listener):
    with connect(listener) as quiet, listener.accept()[0] as end:
        listener.close_silent(accepted_before_ns=end.accepted_ns)
        end.send(b"x")
        assert quiet.recv(1) == b"x"
