from __future__ import annotations

import socket
import time
from contextlib import ExitStack

import pytest

from stream.transport.websocket import CountingSocket
from tests.services.waiting import LIVENESS_S


@pytest.fixture
def listening():
    with CountingSocket(socket.AF_INET, socket.SOCK_STREAM, max_connections=2) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening


def client(listening: CountingSocket) -> CountingSocket:
    connection = CountingSocket(socket.AF_INET, socket.SOCK_STREAM)
    connection.settimeout(LIVENESS_S)
    connection.connect(listening.getsockname())
    return connection


def test_both_ends_count_what_passes(listening):
    with client(listening) as here:
        there, address = listening.accept()
        with there:
            assert address == here.getsockname()
            count = here.send(b"12345")
            there.settimeout(LIVENESS_S)
            buffer = bytearray(16)
            assert here.wire.sent == count == 5
            assert there.recv_into(buffer) == there.wire.received == 5
            there.send(b"123")
            assert len(here.recv(4096)) == here.wire.received == there.wire.sent == 3


def test_connections_beyond_the_limit_are_refused(listening):
    with ExitStack() as stack:
        clients = [stack.enter_context(client(listening)) for _ in range(3)]
        accepted = [stack.enter_context(listening.accept()[0]) for _ in range(2)]
        with pytest.raises(ConnectionAbortedError):
            listening.accept()
        assert clients[2].recv(1) == b""
        accepted[0].close()
        assert len(listening.accepted) == 1
        stack.enter_context(client(listening))
        stack.enter_context(listening.accept()[0])


def test_closing_late_forgets_no_newer_connection(listening):
    """A port is free for another peer as soon as its connection is down, before our side has closed it."""
    with client(listening) as here:
        old, address = listening.accept()
        with CountingSocket(socket.AF_INET, socket.SOCK_STREAM) as newer:
            listening.accepted[address] = newer
            old.close()
            assert listening.accepted == {address: newer}
        assert here.fileno() >= 0


def test_silent_connections_are_shut_down(listening):
    with client(listening) as silent, client(listening) as asking:
        ends = [listening.accept()[0] for _ in range(2)]
        ends[1].asked = True
        time.sleep(0.02)
        listening.close_silent(timeout_s=0.01)
        assert silent.recv(1) == b""
        ends[1].send(b"x")
        assert asking.recv(1) == b"x"
        for end in ends:
            end.close()
