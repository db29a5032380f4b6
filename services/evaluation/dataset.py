"""Pictures to evaluate on: a folder of images with its labels, a clip, or a virtual camera."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np

from services.evaluation.images import ImageFiles, folder_images
from services.evaluation.labels import ClassMap, CocoLabels, Objects, YoloLabels
from stream.canvas import canvas_for
from stream.detections import Detections
from stream.letterbox import Letterbox
from stream.sources.files import Image, open_video, read_video
from stream.sources.virtual_camera import VirtualCamera


@dataclass(frozen=True, slots=True, eq=False)
class LabeledPicture:
    """One picture and, where it is known, what there is to see."""

    image: Image  # (H, W, 3), BGR
    labels: Detections | None  # by the labels' own classes, see Dataset.classes
    crowd: Detections | None = None  # labeled regions in which a detection is neither right nor wrong
    sequence: int = 0  # pictures of one number are consecutive frames, between which a codec keeps its state
    clean: Image | None = None  # what the network is judged by, where it is not the image


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Pictures to evaluate on, read while they are iterated over: again for every iterator."""

    kind: Literal["data", "clip"]  # separate images, or the consecutive frames of a clip
    name: str
    expected: int  # number of pictures, for the progress bar: a clip's container may be wrong, 0 is unknown
    pictures: Iterable[LabeledPicture]
    classes: Mapping[int, str] | None = None  # names of the labels' classes, if somebody says
    files: ImageFiles | None = None  # of a folder

    @property
    def account(self) -> str:
        """A line for people about images that were left out; empty if none were."""
        return self.files.account() if self.files else ""


@dataclass(frozen=True, slots=True)
class _Reading:
    """Starts to read anew for every iterator."""

    read: Callable[[], Iterator[LabeledPicture]]

    def __iter__(self) -> Iterator[LabeledPicture]:
        return self.read()


def read_images(
    folder: Path, every: int = 1, max_frames: int | None = None, labels: Path | None = None
) -> Dataset:
    """Every n-th image of a folder in the order of names, with its labels if there are any.

    `labels` is a file of COCO's that lists every image; without it, YOLO's text files beside the folder count.
    What cannot be decoded is left out. Raises SourceError here, or while reading, for wrong labels.
    """
    files = folder_images(folder, every, max_frames)
    truth = CocoLabels(labels) if labels else YoloLabels.beside(folder)

    def read() -> Iterator[LabeledPicture]:
        for number, (path, image) in enumerate(zip(files.paths, files, strict=True)):
            if truth is None:
                yield LabeledPicture(image, None, sequence=number)
            else:
                objects = truth.of(path, *image.shape[:2])
                yield LabeledPicture(image, objects.single, objects.crowd, number)

    classes = truth.classes if truth else None
    return Dataset("data", files.name, len(files.paths), _Reading(read), classes, files)


def read_clip(path: Path, every: int = 1, max_frames: int | None = None) -> Dataset:
    """Every n-th frame of a video file from its first. Raises SourceError here or while reading."""
    with open_video(path) as reader:
        expected = -(-reader.expected_frames // every)

    def read() -> Iterator[LabeledPicture]:
        return (LabeledPicture(image, None) for image in islice(read_video(path, every), max_frames))

    frames = expected if max_frames is None else min(expected, max_frames)
    return Dataset("clip", path.name, frames, _Reading(read))


def read_virtual(camera: VirtualCamera, frames: int, every: int = 1) -> Dataset:
    """Every n-th frame of a virtual camera from its first, so many in all."""

    def read() -> Iterator[LabeledPicture]:
        return (LabeledPicture(camera.render(number * every), None) for number in range(frames))

    return Dataset("clip", str(camera), frames, _Reading(read))


@dataclass(frozen=True, slots=True, eq=False)
class LetterboxedPicture:
    """One picture as the network is shown it."""

    canvas: Image  # (H, W, 3), BGR
    letterbox: Letterbox
    labels: Objects | None  # by the network's classes
    sequence: int  # as the picture's
    clean: Image  # what the network is judged by: the canvas itself, or one that has less noise


def letterboxed(
    dataset: Dataset, classes: ClassMap, size: int | tuple[int, int], stride: int
) -> Iterator[LetterboxedPicture]:
    """Every picture of the dataset on its canvas, by `size` and `stride` as `canvas_for` takes them.

    Raises SourceError, or InvalidSize.
    """
    clean_image, clean = None, np.empty((0, 0, 3), np.uint8)
    for picture in dataset.pictures:
        frame = picture.image.shape[0], picture.image.shape[1]
        letterbox = Letterbox(frame, canvas_for(size, *frame, stride))
        labels = None
        if picture.labels is not None:
            crowd = classes.translate(picture.crowd) if picture.crowd else None
            labels = Objects(classes.translate(picture.labels), crowd)
        canvas = letterbox.apply(picture.image)
        if picture.clean is None:
            clean = canvas
        elif picture.clean is not clean_image:  # which many noisy pictures may share
            clean = letterbox.apply(picture.clean)
        clean_image = picture.clean
        yield LetterboxedPicture(canvas, letterbox, labels, picture.sequence, clean)
