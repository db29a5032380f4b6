"""What a codec costs in bytes and in detections, against the same network unsplit on the same pictures."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from codec.interface import Decoder, Encoder
from codec.layout import FloatArray, Layout, raw_bytes
from codec.packet import Stamp
from codec.spec import CodecSpec
from services.agreement import Matches, Precision, confident
from services.config import ConfigError
from services.network import choose_device
from stream.detections import Detections
from stream.letterbox import Letterbox, canvas_for, parse_size
from stream.model import Model, configure_torch, load_model
from stream.nms import detect
from stream.sources import IMAGE_SUFFIXES, SourceError
from stream.split import Head, Tail, Unsplit
from stream.stages import StageClock
from stream.weights import find_weights

# What a codec's name alone stands for: the settings that draw its curve.
STANDARD_SETS: Mapping[str, Sequence[str]] = {"rle": [f"rle:bits={bits}" for bits in range(2, 9)]}


@dataclass(frozen=True, slots=True)
class Record:
    """What one codec with one setting did on one source. None where a number does not apply.

    A kB is 1000 bytes. Times are medians over the frames, each on this machine with the network's thread count.
    """

    codec: str  # "none": the network unsplit, which is the ceiling
    setting: str  # every parameter, as in a codec's spec
    data: str | None  # name of the folder of images, or None
    clip: str | None  # name of the video file, or None
    kb_per_frame: float | None  # whole packets, keyframes included
    raw_kb_per_frame: float | None  # the same coefficients as float32
    bits_per_coefficient: float | None  # of whole packets
    map50: float | None  # against the labels, every class counts alike: COCO's mAP
    map: float | None
    agreement: float | None  # against the unsplit network's confident detections, every object counts alike
    agreement50: float | None
    encode_ms: float | None
    decode_ms: float | None
    head_ms: float | None
    tail_ms: float | None
    unsplit_ms: float | None  # the whole network at once, like head and tail without NMS
    frames: int
    keyframes: int | None
    objects: int  # confident detections of the unsplit network, which agreement counts


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One picture and, where it is known, what there is to see."""

    image: NDArray[np.uint8]  # (H, W, 3), BGR
    labels: Detections | None


@dataclass(frozen=True, slots=True, eq=False)
class Footage:
    """Pictures to evaluate on, read while they are iterated over, once."""

    kind: Literal["data", "clip"]  # separate images, or the consecutive frames of a clip
    name: str
    expected: int  # number of pictures, for the progress bar; containers of clips may be wrong about it
    pictures: Iterator[Picture]


def read_images(folder: Path, every: int = 1, max_frames: int | None = None) -> Footage:
    """Every n-th image of a folder in the order of names, with its YOLO labels if there are any.

    Labels lie where ultralytics looks for them, in the folder whose path has `labels` for the last `images`. If
    there are some, an image without has no objects. Raises SourceError here or while reading.
    """
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise SourceError(f"the folder {folder} contains no images; give one that does")
    paths = paths[::every][:max_frames]
    labels = _label_folder(folder)

    def read() -> Iterator[Picture]:
        for path in paths:
            image = cv2.imread(str(path))
            if image is None:
                raise SourceError(f"{path} is no image that OpenCV can read; take it out of the folder")
            yield Picture(
                image, labels and _read_labels(labels / f"{path.stem}.txt", image.shape[0], image.shape[1])
            )

    return Footage("data", folder.absolute().name, len(paths), read())


def _label_folder(images: Path) -> Path | None:
    parts = list(images.absolute().parts)
    if "images" not in parts:
        return None
    parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    labels = Path(*parts)
    return labels if any(labels.glob("*.txt")) else None


def _read_labels(path: Path, height: int, width: int) -> Detections:
    """The objects of one picture: rows of class, centre x, centre y, width, height in shares of the picture."""
    rows = [line.split() for line in path.read_text().splitlines() if line.strip()] if path.exists() else []
    try:
        values = np.array(rows, np.float32).reshape(len(rows), 5)
    except ValueError:
        raise SourceError(f"{path} does not hold rows of class, centre x, centre y, width, height") from None
    centre, extent = values[:, 1:3], values[:, 3:5]
    corners = np.hstack((centre - extent / 2, centre + extent / 2))
    boxes = corners * np.array([width, height] * 2, np.float32)
    return Detections(boxes, np.ones(len(rows), np.float32), values[:, 0].astype(np.int64))


def read_clip(path: Path, every: int = 1, max_frames: int | None = None) -> Footage:
    """Every n-th frame of a video file from its first. Raises SourceError."""
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        raise SourceError(f"cannot read {path}; give a video file")
    expected = -(-max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0) // every)

    def read() -> Iterator[Picture]:
        try:
            while True:
                good, image = capture.read()
                if not good:
                    return
                yield Picture(image, labels=None)
                for _ in range(every - 1):
                    capture.grab()
        finally:
            capture.release()

    frames = expected if max_frames is None else min(expected, max_frames)
    return Footage("clip", path.name, frames, islice(read(), max_frames))


class Course:
    """One codec on its way along one source: its coders, and a tally of what came out."""

    def __init__(self, spec: CodecSpec | None, footage: Footage) -> None:
        self._spec = spec  # None: the network unsplit
        self._footage = footage
        self._encoder: Encoder | None = None
        self._decoder: Decoder | None = None
        self._agreement, self._accuracy = Matches(), Matches()
        self._durations_ns: dict[str, list[int]] = {}
        self._frames = self._keyframes = self._coded_bytes = self._raw_bytes = 0

    def code(self, tensors: Mapping[str, FloatArray], layout: Layout, frame: tuple[int, int], tail: Tail) -> torch.Tensor:
        """Predictions from one frame's tensors after coding; `frame` is (H, W) of the picture in pixels.

        A clip has one encoder and one decoder, and its packets consecutive numbers. A single image has new ones,
        so that its packet is a keyframe.
        """
        assert self._spec is not None
        if self._encoder is None or self._decoder is None or self._footage.kind == "data":
            self._encoder, self._decoder = self._spec.encoder(layout), self._spec.decoder(layout)
        stamp = Stamp(self._frames, 0, *frame)
        clock = StageClock(time.monotonic_ns())
        packet = self._encoder.encode(tensors, stamp)
        clock.lap("encode")
        decoded = self._decoder.decode(packet.data).tensors
        clock.lap("decode")
        prediction = tail(decoded).cpu()  # waits for the device, so that the time is the whole time
        clock.lap("tail")
        self.time(clock.durations_ns)
        self._keyframes += decoded_keyframe(packet.data) if False else packet.keyframe
        self._coded_bytes += len(packet.data)
        self._raw_bytes += raw_bytes(layout)
        return prediction
