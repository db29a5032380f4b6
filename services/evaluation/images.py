"""The images of a folder or a list that can be read, and an account of those that cannot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from services.printable import printable
from stream.errors import SourceError, UnreadableImage
from stream.sources.files import Image, LeftOut, list_images, read_image


@dataclass(frozen=True, slots=True)
class ImageFiles:
    """Files that have been decoded once, so that every pass over them sees the same pictures."""

    name: str  # of the folder or list
    paths: tuple[Path, ...]
    left_out: tuple[LeftOut, ...]

    def __iter__(self) -> Iterator[Image]:
        """The pictures, read anew for every iterator. Raises UnreadableImage for one that has changed since."""
        return map(read_image, self.paths)

    def account(self) -> str:
        """A line for people: how many were left out, and why; empty if none were."""
        if not self.left_out:
            return ""
        by_reason = groupby(sorted(self.left_out, key=lambda left: left.reason), key=lambda left: left.reason)
        reasons = []
        for reason, group in by_reason:
            first, *others = (left.path.name for left in group)
            more = f" and {len(others)} more" if others else ""
            reasons.append(f"{printable(first)}{more}: {printable(reason)}")
        return f"{printable(self.name)}: {len(self.left_out)} left out, {len(self.paths)} taken ({'; '.join(reasons)})"


def folder_images(folder: Path, every: int = 1, most: int | None = None) -> ImageFiles:
    """Every n-th image of a folder in the order of names, at most so many. Raises SourceError if there is none."""
    return readable_images(
        folder.absolute().name, list_images(folder), every, most, place=printable(str(folder))
    )


def readable_images(
    name: str, found: Iterable[Path | LeftOut], every: int = 1, most: int | None = None, *, place: str
) -> ImageFiles:
    """Every n-th of the images found, at most so many that can be decoded; others are left out.

    `place` is where they were found, for people. Raises SourceError if there is none.
    """
    found = list(found)
    left_out = [item for item in found if isinstance(item, LeftOut)]
    paths: list[Path] = []
    for path in [item for item in found if isinstance(item, Path)][::every]:
        if len(paths) == most:
            break
        reason = _why_not(path)
        if reason is None:
            paths.append(path)
        else:
            left_out.append(LeftOut(path, reason))
    files = ImageFiles(name, tuple(paths), tuple(left_out))
    if not paths:
        why = f": {files.account()}" if left_out else ""
        raise SourceError(f"there are no images in {place} that can be read; give some{why}")
    return files


def _why_not(path: Path) -> str | None:
    try:
        read_image(path)
    except UnreadableImage as error:
        return error.reason
    return None
