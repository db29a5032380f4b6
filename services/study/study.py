"""What an experiment is, and what every one is given: networks, pictures, and a book to write to."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ultralytics.utils.cpu import CPUInfo

from services.errors import NotMeasurable
from services.study.dataset import PictureSet
from services.study.record import RANDOM, RecordBook, Settings, StudyRecord
from services.study.section import Section
from services.study.subject import SplitSample, Subject


@dataclass(slots=True, eq=False)
class Study:
    """Networks and pictures of one study. Experiments ask what is missing, measure it and write it down."""

    book: RecordBook
    subjects: Sequence[Subject]
    images: PictureSet | None = None  # a folder of images, with labels of objects or not
    imagenet: PictureSet | None = None  # images by class
    clips: Sequence[PictureSet] = ()
    training: Sequence[PictureSet] = ()  # for what is trained, and none of the above
    seed: int = 0
    quick: bool = False  # fewer pictures and settings: to see that it works, not to conclude from
    watch: Callable[[str], None] = lambda what: None  # told what runs, once a picture
    refusals: list[str] = field(default_factory=list)  # what was left out and why

    def for_each_subject(self, measure: Callable[[Study, Subject], None]) -> None:
        """Measure network by network, as far as that can be done."""
        for subject in self.subjects:
            with self.refusing():
                measure(self, subject)

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Go on after what cannot be done, and remember why it was left out."""
        try:
            yield
        except NotMeasurable as refusal:
            if str(refusal) not in self.refusals:
                self.refusals.append(str(refusal))

    def stills(self, subject: Subject) -> PictureSet:
        """Pictures for sizes and statistics. Raises NotMeasurable if there are none."""
        if "top1" in subject.scores and self.imagenet is not None:
            return self.imagenet
        if self.images is None:
            raise NotMeasurable(f"{subject.name} needs pictures: give a folder of images with --data")
        return self.images

    def judged(self, subject: Subject) -> PictureSet:
        """Pictures to judge what a network finds.

        Raises NotMeasurable without any, and for random weights, whose answers mean nothing.
        """
        if subject.weights == RANDOM:
            raise NotMeasurable(
                f"{subject.name} has random weights, so that its accuracy means nothing: "
                f"give weights with --model {subject.name}=FILE"
            )
        return self.stills(subject)

    def clip(self) -> PictureSet:
        """The first clip. Raises NotMeasurable if there is none."""
        if not self.clips:
            raise NotMeasurable("frames that follow each other are needed: give a video with --clip")
        return self.clips[0]

    def samples(
        self, subject: Subject, pictures: PictureSet, most: int | None = None
    ) -> Iterator[SplitSample]:
        """What crosses the split for each picture; tells the progress bar."""
        for sample in subject.samples(pictures, most):
            self.watch(f"{subject.name} {subject.split}")
            yield sample

    def missing(
        self,
        experiment: str,
        subject: Subject | None,
        pictures: PictureSet | None,
        points: Iterable[Settings],
    ) -> list[Settings]:
        """The settings of those points of which the book holds no record yet."""
        return [
            settings
            for settings in points
            if self._record(experiment, subject, pictures, settings) not in self.book
        ]

    def write(
        self,
        experiment: str,
        subject: Subject | None,
        pictures: PictureSet | None,
        settings: Settings,
        *,
        values: Mapping[str, Any],
        times_ms: Mapping[str, float] | None = None,
    ) -> None:
        """Append a measured point to the book."""
        self.book.add(
            self._record(experiment, subject, pictures, settings, values=values, times_ms=times_ms or {})
        )

    def _record(
        self,
        experiment: str,
        subject: Subject | None,
        pictures: PictureSet | None,
        settings: Settings,
        *,
        values: Mapping[str, Any] | None = None,
        times_ms: Mapping[str, float] | None = None,
    ) -> StudyRecord:
        return StudyRecord(
            experiment=experiment,
            network=subject.name if subject else "",
            weights=subject.weights if subject else "",
            split=subject.split if subject else "",
            # Quick points are of fewer pictures than there are, and no substitute for whole ones.
            data=f"{'quick ' if self.quick else ''}{pictures.name}" if pictures else "",
            seed=self.seed,
            settings=settings,
            values=values or {},
            times_ms=times_ms or {},
            commit=_commit(),
            machine=_machine(),
            versions=_versions(),
        )


@dataclass(frozen=True, slots=True)
class Experiment:
    """One of the paper's tables or figures, or one of ours."""

    name: str  # on the command line and in records
    summary: str  # for the command's help
    measure: Callable[[Study], None]
    """Writes the records that are missing. Leaves out what cannot be measured, network by network."""
    present: Callable[[Sequence[StudyRecord]], Section]
    """Shows this experiment's records, of which there is at least one. Reads nothing else."""


@cache
def _commit() -> str:
    """The commit of the checkout that this code lies in, with + if it was changed since; empty elsewhere."""
    here = Path(__file__)

    def git(*arguments: str) -> str:
        command = ("git", "-C", str(here.parent), *arguments)
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        # Installed into somebody else's checkout, this file is not theirs.
        git("ls-files", "--error-unmatch", here.name)
        head, changed = git("rev-parse", "--short=12", "HEAD"), git("status", "--porcelain", "-uno")
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head + ("+" if changed else "")


@cache
def _machine() -> str:
    return f"{CPUInfo.name()}, {platform.system()}"


@cache
def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("splitcast", "torch", "torchvision", "numpy", "pillow")}
