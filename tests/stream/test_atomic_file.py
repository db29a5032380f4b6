"""A file is replaced whole, or stays what it was."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stream.atomic_file import replacing, write_whole


def test_a_file_appears_once_it_is_written(tmp_path: Path) -> None:
    target = tmp_path / "file"
    with replacing(target) as partial:
        partial.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_after_an_exception_the_file_is_what_it_was(tmp_path: Path) -> None:
    (target := tmp_path / "file").write_text("old")

    def write_half() -> None:
        with replacing(target) as partial:
            partial.write_text("half")
            raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        write_half()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("content", ["é\n", b"\xc3\xa9\n"])
def test_content_is_written_whole(tmp_path: Path, content: str | bytes) -> None:
    write_whole(tmp_path / "file", content)
    assert (tmp_path / "file").read_bytes() == b"\xc3\xa9\n"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_disk_that_is_full_is_told_by_the_name_of_the_file() -> None:
    with pytest.raises(OSError, match="cannot write /dev/full: No space left on device"):
        write_whole(Path("/dev/full"), "content")
    assert Path("/dev/full").is_char_device()


def test_what_is_no_file_is_written_to_itself(tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_whole(pipe, "content")
    assert os.read(reader, 99) == b"content"
    os.close(reader)
    assert pipe.is_fifo()


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (folder := tmp_path / "elsewhere").mkdir()
    (link := tmp_path / "link").symlink_to(folder / "file")
    write_whole(link, "content")
    assert link.is_symlink()
    assert (folder / "file").read_text() == "content"
    assert len(list(folder.iterdir())) == 1


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"cannot write .*absent/file: No such file"):
        write_whole(tmp_path / "absent" / "file", "content")


def test_an_error_of_another_file_stays_what_it_is(tmp_path: Path) -> None:
    def read_inside() -> None:
        with replacing(tmp_path / "file"):
            (tmp_path / "input").read_text()

    with pytest.raises(FileNotFoundError, match="input") as failed:
        read_inside()
    assert failed.value.filename == str(tmp_path / "input")
