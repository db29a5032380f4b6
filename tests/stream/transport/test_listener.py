from __future__ import annotations

import gc
import socket
import subprocess
import sys
from contextlib import ExitStack
from weakref import ref

import pytest

from stream.leaky_bucket import LeakyBucket
from stream.transport.listener import (
    MADE_WAY,
    TOO_MANY_CONNECTIONS,
    TOO_MANY_FROM_ADDRESS,
    TOO_MANY_STRANGERS,
    TOO_OFTEN,
    AcceptedSocket,
    Listener,
)
from stream.transport.places import AddressRates, ConnectionRates, Places
from stream.transport.websocket import CountingSocket
from tests.services.waiting import LIVENESS_S

MANY = LeakyBucket(1, 10**9)


@pytest.fixture
def listener():
    with Listener.bound("127.0.0.1", 0, Places(2), max_open=3) as listener:
        listener.refused = []
        listener.on_refuse = lambda reason, address: listener.refused.append((reason, address))
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


def test_the_connection_that_is_idle_the_longest_makes_way(listener):
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(listener)) for _ in range(3)]
        accepted = [stack.enter_context(listener.accept()[0]) for _ in range(2)]
        clients[0].send(b"x")
        assert accepted[0].recv(1) == b"x"
        newer = stack.enter_context(listener.accept()[0])
        assert clients[1].recv(1) == b""
        assert listener.refused == [(MADE_WAY, "127.0.0.1")]
        assert len(listener.pool) == 2
        newer.close()
        assert len(listener.pool) == 1


def test_connections_that_are_not_closed_yet_count(listener):
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(listener)) for _ in range(4)]
        for _ in range(3):  # the first has made way, and is still open
            stack.enter_context(listener.accept()[0])
        with pytest.raises(ConnectionAbortedError):
            listener.accept()
        assert clients[3].recv(1) == b""
        assert listener.refused[-1] == (TOO_MANY_CONNECTIONS, "127.0.0.1")


def test_a_connection_that_is_closed_is_left_to_no_collection(listener):
    with socket.create_connection(listener.getsockname(), timeout=LIVENESS_S):
        gc.disable()
        try:
            connection, _ = listener.accept()
            known = ref(connection)
            connection.close()
            del connection
            assert known() is None
        finally:
            gc.enable()


def test_a_connection_with_a_place_elsewhere_makes_way_for_nobody(listener):
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(listener)) for _ in range(3)]
        accepted = []
        for _ in range(3):
            accepted.append(stack.enter_context(listener.accept()[0]))
            accepted[-1].leave_pool()
        accepted[0].send(b"x")
        assert clients[0].recv(1) == b"x"
        assert listener.refused == []


@pytest.mark.parametrize(
    ("places", "rates", "reason"),
    [
        (Places(2), ConnectionRates(AddressRates(0.001, 1), MANY), TOO_OFTEN),
        (Places(2), ConnectionRates(AddressRates(1000, 9), LeakyBucket(10**12, 1)), TOO_MANY_STRANGERS),
        (Places(2, per_address=1, own=False), None, TOO_MANY_FROM_ADDRESS),
    ],
    ids=["too often", "too many strangers", "no place"],
)
def test_who_comes_too_often_or_gets_no_place_is_left_at_once(places, rates, reason):
    with (
        Listener.bound("127.0.0.1", 0, places, rates=rates) as listener,
        connect(listener),
        connect(listener) as second,
        listener.accept()[0],
    ):
        refused = []
        listener.on_refuse = lambda reason, address: refused.append((reason, address))
        with pytest.raises(ConnectionAbortedError):
            listener.accept()
        assert second.recv(1) == b""
        assert refused == [(reason, "127.0.0.1")]
        assert len(listener.accepted) == len(listener.pool) == 1


def test_a_process_without_files_closes_connections_and_waits_for_none():
    """In a process of its own, whose limit is low."""
    program = """
import asyncio, logging, resource, socket, sys
from stream.transport.listener import Listener
from stream.transport.places import Places

logging.basicConfig(level="WARNING")
files = 24

async def main():
    refused = []
    listener = Listener.bound("127.0.0.1", 0, Places(1000), on_refuse=lambda *why: refused.append(why))
    listener.setblocking(False)
    server = await asyncio.start_server(lambda reader, writer: None, sock=listener)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    address = listener.getsockname()
    print(address[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    assert set(refused) <= {("too_many_connections", "Too many open files")}, refused
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
