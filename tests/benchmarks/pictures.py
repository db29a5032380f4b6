"""Gathers pictures to measure codecs on, with labels or without: more of them than anybody labels.

    python -m tests.benchmarks.pictures OUT --data images/val2017 --clip street.mp4 --clip door.mp4
    splitcast evaluate --model yolov5n --data OUT --codec feature --against jpeg

In the new folder OUT then are the images of the folders, a frame of every clip each second, and the photographs that
installed packages ship; the same picture only once. What a codec does to a picture can be measured wherever the
network sees something, so that no labels are needed: by distortion, and by agreement.
"""

from __future__ import annotations

import hashlib
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib.metadata import distributions
from pathlib import Path

import cv2
import numpy as np

from stream.errors import UnreadableImage
from stream.sources.files import IMAGE_SUFFIXES, Image, list_images, open_video, read_image, read_video

LEAST_SIDE = 200  # pixels: what is smaller is an icon
LEAST_COLORS = 5000  # of every seventh pixel: what has fewer is drawn


def from_folder(folder: Path) -> Iterator[tuple[str, Image]]:
    """Every image that can be read, by a name."""
    for path in list_images(folder):
        if isinstance(path, Path):
            with suppress(UnreadableImage):
                yield path.stem, read_image(path)


def from_clip(path: Path) -> Iterator[tuple[str, Image]]:
    """A frame each second, by a name."""
    with open_video(path) as reader:
        each_second = max(round(reader.fps), 1)
    for second, image in enumerate(read_video(path, each_second)):
        yield f"{path.stem}-{second:04}", image


def from_packages() -> Iterator[tuple[str, Image]]:
    """The photographs among the files of all installed packages, by a name."""
    for package in sorted(distributions(), key=lambda package: package.metadata["Name"]):
        for file in package.files or ():
            if file.suffix.lower() not in IMAGE_SUFFIXES:
                continue
            with suppress(UnreadableImage, OSError):
                image = read_image(Path(str(file.locate())))
                if is_photograph(image):
                    yield f"{package.metadata['Name']}-{file.stem}", image


def is_photograph(image: Image) -> bool:
    """Whether a picture is large and colorful enough to be no icon and no diagram."""
    colors = np.unique(image.reshape(-1, 3)[::7], axis=0)
    return min(image.shape[:2]) >= LEAST_SIDE and len(colors) >= LEAST_COLORS


def gather(out: Path, folders: Iterable[Path], clips: Iterable[Path]) -> int:
    """Write every different picture to the folder, which is made; returns how many."""
    out.mkdir(parents=True)
    sources = (
        [from_folder(folder) for folder in folders] + [from_clip(clip) for clip in clips] + [from_packages()]
    )
    seen = set[bytes]()
    for source in sources:
        for name, image in source:
            content = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).digest()
            if content not in seen:
                seen.add(content)
                cv2.imwrite(str(out / f"{name}.png"), image)
    return len(seen)


def main() -> None:
    parser = ArgumentParser(prog="python -m tests.benchmarks.pictures", description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder to make")
    parser.add_argument("--data", type=Path, action="append", default=[], help="folder of images")
    parser.add_argument("--clip", type=Path, action="append", default=[])
    options = parser.parse_args()
    print(f"{options.out}: {gather(options.out, options.data, options.clip)} pictures")


if __name__ == "__main__":
    main()
