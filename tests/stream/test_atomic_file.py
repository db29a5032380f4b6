"""A file is replaced whole, or stays what it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream.atomic_file import replacing


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
