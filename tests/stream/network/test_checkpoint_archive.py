"""A checkpoint's zip file holds what it says and no more."""

from __future__ import annotations

import struct
import zipfile

import pytest

from stream.errors import UnreadableCheckpoint
from stream.network import checkpoint_archive
from stream.network.checkpoint import read_checkpoint
from tests.stream.network.checkpoints import read_tensors, write


@pytest.mark.parametrize("elements", [5, 3, 0, -4, 1 << 50, 4.0, "4", None])
def test_refuses_storages_of_another_size(tmp_path, elements):
    with pytest.raises(UnreadableCheckpoint, match=r"declared size|persistent id"):
        read_tensors(tmp_path / "model.pt", (0, (1,), (1,)), elements=elements)


@pytest.mark.parametrize("key", ["1", "", "../data.pkl", "/etc/passwd", 0, None])
def test_refuses_storages_that_are_not_there(tmp_path, key):
    with pytest.raises(UnreadableCheckpoint):
        read_tensors(tmp_path / "model.pt", (0, (1,), (1,)), key=key)


def test_refuses_compressed_files(small, tmp_path):
    with zipfile.ZipFile(small) as old, zipfile.ZipFile(tmp_path / "m.pt", "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            new.writestr(info.filename, old.read(info))
    with pytest.raises(UnreadableCheckpoint, match="compressed"):
        read_checkpoint(tmp_path / "m.pt")


def test_refuses_overlapping_members(tmp_path):
    path = write(tmp_path / "model.pt", b"N.", {str(index): bytes(1000) for index in range(50)})
    data = bytearray(path.read_bytes())
    start = data.index(b"PK\x01\x02")
    position, first = start, None
    while (position := data.find(b"PK\x01\x02", position)) >= 0:
        if b"data/0" in data[position + 46 : position + 70]:
            first = data[position + 42 : position + 46]
        elif first is not None:
            data[position + 42 : position + 46] = first  # every storage begins where the first does
        position += 4
    path.write_bytes(bytes(data[:1200] + data[start:]))
    with pytest.raises(UnreadableCheckpoint):
        read_checkpoint(path)


def test_refuses_big_endian_files(tmp_path):
    with pytest.raises(UnreadableCheckpoint, match="big-endian"):
        read_checkpoint(write(tmp_path / "model.pt", b"N.", byteorder=b"big"))


def test_refuses_torchscript(tmp_path):
    with pytest.raises(UnreadableCheckpoint, match="TorchScript"):
        read_checkpoint(write(tmp_path / "model.pt", b"N.", **{"constants.pkl": b"N."}))


def test_zip_of_declared_size_only(small, tmp_path):
    """A member whose directory entry declares four gigabytes is refused before they are allocated."""
    data = bytearray(small.read_bytes())
    position = data.rindex(b"PK\x01\x02")
    data[position + 20 : position + 28] = struct.pack("<II", 0xFFFFFFF0, 0xFFFFFFF0)
    (tmp_path / "model.pt").write_bytes(data)
    with pytest.raises(UnreadableCheckpoint):
        read_checkpoint(tmp_path / "model.pt")


def test_refuses_a_long_list_of_members_before_parsing_it(tmp_path, monkeypatch):
    path = write(tmp_path / "model.pt", b"N.", {str(index): b"" for index in range(100)})
    monkeypatch.setattr(checkpoint_archive, "MAX_DIRECTORY_BYTES", 1000)
    monkeypatch.setattr(zipfile, "ZipInfo", None)
    with pytest.raises(UnreadableCheckpoint, match="list of members is longer"):
        read_checkpoint(path)


def test_refuses_members_of_two_sizes(small, tmp_path):
    """Otherwise each of many small members could have the rest of the file read for it."""
    data = bytearray(small.read_bytes())
    position = data.rindex(b"PK\x01\x02")
    data[position + 20 : position + 24] = struct.pack("<I", len(data))
    (tmp_path / "model.pt").write_bytes(data)
    with pytest.raises(UnreadableCheckpoint, match="two sizes"):
        read_checkpoint(tmp_path / "model.pt")
