"""Records survive being written, and a study that was interrupted goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.study.record import RANDOM, RecordBook, StudyRecord, by_subject
from stream.errors import SourceError
from tests.services.study.records import record


def test_a_record_comes_back_from_its_line() -> None:
    one = record("figure5", {"bits": 3}, {"map": 0.25}, times_ms={"encode": 1.5}, machine="a machine")
    assert StudyRecord.parse(one.line()) == one


def test_the_key_tells_what_was_measured_and_not_where() -> None:
    one = record("figure5", {"bits": 3}, {"map": 0.25})
    same = record(
        "figure5", {"bits": 3}, {"map": 0.5}, times_ms={"encode": 2.0}, machine="another", commit="1"
    )
    others = [
        record("figure6", {"bits": 3}, {}),
        record("figure5", {"bits": 4}, {}),
        record("figure5", {"bits": 3}, {}, weights=RANDOM),
        record("figure5", {"bits": 3}, {}, data="folder 3 abd"),
        record("figure5", {"bits": 3}, {}, split="4.cv1"),
        record("figure5", {"bits": 3}, {}, network="other"),
        record("figure5", {"bits": 3}, {}, seed=1),
    ]
    assert same.key == one.key
    assert one.key not in {other.key for other in others}
    assert len({other.key for other in others}) == len(others)


def test_a_book_reads_what_it_wrote(tmp_path: Path) -> None:
    book = RecordBook(tmp_path / "records.jsonl")
    written = [record("figure5", {"bits": bits}, {"map": bits / 10}) for bits in range(2, 5)]
    for one in written:
        book.add(one)
    again = RecordBook(tmp_path / "records.jsonl")
    assert list(again) == written
    assert written[0] in again
    assert record("figure5", {"bits": 8}, {}) not in again
    assert again.of("figure6") == []


def test_a_line_that_was_cut_off_is_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    whole, cut = record("figure5", {"bits": 2}, {}), record("figure5", {"bits": 3}, {})
    path.write_text(f"{whole.line()}\n{cut.line()[:40]}")
    book = RecordBook(path)
    assert list(book) == [whole]
    book.add(cut)
    assert list(RecordBook(path)) == [whole, cut]


@pytest.mark.parametrize("line", ["{}", "[]", "no JSON", '{"experiment": "figure5"}', "", "1"])
def test_a_file_of_something_else_is_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text(f"{record('figure5', {}, {}).line()}\n{line}\n")
    with pytest.raises(SourceError, match="line 2"):
        RecordBook(path)


def test_a_record_with_values_of_another_type_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text(record("figure5", {}, {}).line().replace('"values":{}', '"values":[]') + "\n")
    with pytest.raises(SourceError, match="wrong type"):
        RecordBook(path)


def test_records_are_grouped_by_what_they_are_of() -> None:
    records = [
        record("figure5", {"bits": 2}, {}),
        record("figure5", {"bits": 2}, {}, network="other"),
        record("figure5", {"bits": 3}, {}),
        record("figure5", {"bits": 3}, {}, data="elsewhere 1 f"),
    ]
    assert by_subject(records) == [[records[0], records[2]], [records[1]], [records[3]]]


@pytest.mark.parametrize(
    ("data", "source"),
    [
        ("val2017 64 0123456789ab", "val2017"),
        ("quick my own pictures 16 0123456789ab", "my own pictures"),
        ("door.mp4 1 0123456789ab 60", "door.mp4"),
        ("door.mp4 1 0123456789ab 60 every 3", "door.mp4"),
        ("", ""),
    ],
)
def test_a_source_is_known_by_its_name(data: str, source: str) -> None:
    assert record("figure5", {}, {}, data=data).source == source
