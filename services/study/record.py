"""One line of JSON for every measured point. Tables and figures are pure functions of these lines."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self, SupportsFloat, TypeAlias

from stream.atomic_file import write_whole
from stream.errors import SourceError

Settings: TypeAlias = Mapping[str, Any]  # what was varied, as JSON has it
RANDOM = "random"
"""Stands for the hash of weights that nobody trained."""


@dataclass(frozen=True, slots=True)
class StudyRecord:
    """A measured point. All but the times is the same for the same settings, weights, pictures and seed."""

    experiment: str  # "figure5"
    network: str  # "yolov5n"; empty where no network has a part in it
    weights: str  # hash of the weights, RANDOM, or empty where only shapes count
    split: str
    data: str  # name and digest of the pictures; empty where none were needed
    seed: int
    settings: Settings
    values: Mapping[str, Any]
    times_ms: Mapping[str, float] = field(default_factory=dict)  # medians, on one thread
    commit: str = ""
    machine: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def random(self) -> bool:
        """Whether the weights are random, which every figure made of this has to say."""
        return self.weights == RANDOM

    @property
    def source(self) -> str:
        """Name of the folder or clip, without what tells its contents."""
        match = re.fullmatch(r"(?:quick )?(.*) \d+ [0-9a-f]{12}(?: .*)?", self.data)
        return match[1] if match else self.data

    @property
    def key(self) -> str:
        """Tells one point from all others: everything that it was measured with, but for the machine."""
        circumstances = (self.network, self.weights, self.split, self.data, self.seed, self.settings)
        return json.dumps([self.experiment, *circumstances], sort_keys=True)

    def line(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"), allow_nan=False)

    @classmethod
    def parse(cls, line: str) -> Self:
        """Raises ValueError for anything but a record's line."""
        content = json.loads(line)
        names = {attribute.name for attribute in fields(cls)}
        if not isinstance(content, dict) or content.keys() != names:
            raise ValueError("it is no object with the keys of a record")
        record = cls(**content)
        mappings = (record.settings, record.values, record.times_ms, record.versions)
        texts = (record.experiment, record.network, record.weights, record.split, record.data)
        if not all(isinstance(mapping, dict) for mapping in mappings) or not all(
            isinstance(text, str) for text in texts
        ):
            raise ValueError("a value has the wrong type")
        return record


class RecordBook:
    """The records of a study in a file that only grows: an interrupted study goes on where it stopped."""

    def __init__(self, path: Path) -> None:
        """Reads what is there. Raises SourceError for a file that holds anything else than records."""
        self.path = path
        self._records: dict[str, StudyRecord] = {}
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        *lines, rest = text.split("\n")
        for number, line in enumerate(lines, 1):
            try:
                record = StudyRecord.parse(line)
            except (ValueError, TypeError) as error:
                raise SourceError(f"{path}, line {number}: no record of a study ({error})") from None
            self._records[record.key] = record
        if rest:  # the line that was being written when the study was interrupted
            write_whole(path, "".join(f"{line}\n" for line in lines))

    def __contains__(self, record: StudyRecord) -> bool:
        return record.key in self._records

    def __iter__(self) -> Iterator[StudyRecord]:
        return iter(self._records.values())

    def of(self, experiment: str) -> Sequence[StudyRecord]:
        """The records of one experiment, in the order in which they were measured."""
        return [record for record in self if record.experiment == experiment]

    def add(self, record: StudyRecord) -> None:
        """Append a record to the file; it is there once this returns. Raises OSError, and leaves no part of it."""
        line = f"{record.line()}\n".encode()
        with self.path.open("ab", buffering=0) as file:
            before = file.tell()
            try:
                if file.write(line) != len(line):  # the disk took what it could
                    raise OSError(errno.ENOSPC, f"cannot write {self.path}: {os.strerror(errno.ENOSPC)}")
            except OSError:
                file.truncate(before)
                raise
        self._records[record.key] = record


def rounded(value: SupportsFloat) -> float:
    """To six significant digits, for records that a person can read."""
    return float(f"{float(value):.6g}")


def by_subject(records: Sequence[StudyRecord]) -> list[list[StudyRecord]]:
    """The records of each network, split point and set of pictures, in the order in which these first occur."""
    groups: dict[tuple[str, ...], list[StudyRecord]] = {}
    for record in records:
        subject = (record.network, record.weights, record.split, record.data, str(record.seed))
        groups.setdefault(subject, []).append(record)
    return list(groups.values())
