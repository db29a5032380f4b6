"""Files of packets: refusal of every truncation, and of other files."""

from __future__ import annotations

import pytest

from codec.errors import CorruptPacket, TruncatedPacket, UnsupportedPacket
from codec.packet_file import FILE_START, framed, read_packets

PACKETS = [b"\x80" * 15, b"SPLC" * 50, b"S"]
FILE = FILE_START + b"".join(map(framed, PACKETS))
ENDS = [len(FILE_START + b"".join(map(framed, PACKETS[:count]))) for count in range(4)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "some.spc"


def test_gives_the_packets_that_were_written(path):
    path.write_bytes(FILE)
    assert list(read_packets(path)) == PACKETS


@pytest.mark.parametrize("start", [b"", FILE_START])
def test_an_empty_file_has_none(start, path):
    path.write_bytes(start)
    assert list(read_packets(path)) == []


@pytest.mark.parametrize("size", sorted(set(range(1, len(FILE))) - set(ENDS)))
def test_refuses_truncation_after_the_whole_packets(size, path):
    path.write_bytes(FILE[:size])
    reading = read_packets(path)
    whole = sum(end <= size for end in ENDS[1:])
    assert [next(reading) for _ in range(whole)] == PACKETS[:whole]
    with pytest.raises(TruncatedPacket, match="needs at least"):
        next(reading)


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (b"PK\x03\x04\x05", CorruptPacket, "the file starts with"),
        (b"SPLC\x01\x01\x01\x01", UnsupportedPacket, "version 1, this decoder takes 2"),
        (FILE_START + b"\x80\x01S", CorruptPacket, "begins with zeros"),
        (FILE_START + b"\x82" + b"\xff" * 8 + b"\x7f", CorruptPacket, "64 bits"),
        (FILE_START + b"\xff" * 12, CorruptPacket, "64 bits"),
        (FILE_START + b"\x81" + b"\xff" * 8 + b"\x7f", CorruptPacket, "the limit is"),
    ],
)
def test_refuses_what_is_no_file_of_packets(data, error, message, path):
    path.write_bytes(data)
    with pytest.raises(error, match=message):
        list(read_packets(path))


def test_refuses_a_packet_over_the_limit_before_reading_it(path):
    path.write_bytes(FILE_START + framed(PACKETS[1]))
    assert list(read_packets(path, 200)) == PACKETS[1:2]
    with pytest.raises(CorruptPacket, match="the limit is"):
        list(read_packets(path, 199))
