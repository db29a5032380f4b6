"""Counts what a network finds on the demo's own scenes, where what a person sees is known by hand."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from ultralytics.utils.metrics import box_iou

from codec.packet import Stamp
from codec.spec import parse_codec
from services.profiles import resolve
from services.settings import DEFAULT_CODEC
from services.training.pictures import CLASSES, PHOTOGRAPHS
from stream.detections import Detections
from stream.letterbox import Letterbox
from stream.network.download import find_weights
from stream.network.names import DEFAULT_SPLIT, DEMO
from stream.sources.virtual_camera import SCENES, VirtualCamera
from stream.torch_network.model import Model, load_model
from stream.torch_network.nms import detect
from stream.torch_network.split import TorchHead, TorchTail

CLEARLY_VISIBLE = 0.5  # share of an object inside the frame from which on it has to be found
HARDLY_VISIBLE = 0.05  # share below which finding it is as good as finding nothing
SAME = 0.5  # intersection over union of a detection and the visible part of its object
BESIDE = 0.2  # the same for an object of which too little is visible to say where it ends


class SplitDetector:
    """Camera and detector without the wire between them, with the settings that both have by default."""

    def __init__(self, network: Model, canvas: tuple[int, int] = (480, 640)) -> None:
        self.letterbox = Letterbox(canvas, canvas)
        self.head, self.tail = TorchHead(network, size=canvas), TorchTail(network)
        codec = resolve(parse_codec(DEFAULT_CODEC), network.weights_hash, DEFAULT_SPLIT)
        self.encoder, self.decoder = codec.encoder(self.head.layout), codec.decoder(self.head.layout)
        self.frames = 0

    def __call__(self, image: NDArray[np.uint8]) -> Detections:
        """The objects on a picture of the canvas's size; pictures follow one another as in a video."""
        packet = self.encoder.encode(self.head(image), Stamp(self.frames, 0, *self.letterbox.frame))
        self.frames += 1
        prediction = self.tail(self.decoder.decode(packet.data).tensors)
        return detect(prediction, self.letterbox)


@dataclass(frozen=True, slots=True)
class SceneCount:
    """What was found on frames of a scene."""

    frames: int
    complete: int  # frames in which every clearly visible object was found
    false: int  # detections of what is not there, doubles included
    objects: int  # clearly visible, over all frames
    found: int

    def __add__(self, other: SceneCount) -> SceneCount:
        return SceneCount(
            self.frames + other.frames,
            self.complete + other.complete,
            self.false + other.false,
            self.objects + other.objects,
            self.found + other.found,
        )


def count(
    look: Callable[[NDArray[np.uint8]], Detections], camera: VirtualCamera, frames: Iterable[int]
) -> SceneCount:
    """Compares detections of the demo's classes with what the frames show.

    An object that is partly outside the frame may be found or not, with any box that overlaps it.
    """
    total = SceneCount(0, 0, 0, 0, 0)
    for number in frames:
        kinds, boxes, visible = objects_in(camera, number)
        detections = look(camera.render(number))
        same = (detections.class_id[:, None] == kinds) * box_iou(
            torch.from_numpy(detections.boxes), torch.from_numpy(boxes)
        ).numpy()
        taken = np.zeros(len(kinds), bool)
        false = 0
        for row in same:  # the most confident first
            needed = np.where(visible >= CLEARLY_VISIBLE, SAME, BESIDE)
            fits = np.flatnonzero((row >= needed) & ~taken)
            if len(fits):
                taken[fits[row[fits].argmax()]] = True
            else:
                false += 1
        clear = visible >= CLEARLY_VISIBLE
        total += SceneCount(1, bool(taken[clear].all()), false, int(clear.sum()), int(taken[clear].sum()))
    return total


def objects_in(
    camera: VirtualCamera, number: int
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float64]]:
    """What frame `number` shows: class (N,), visible box (N, 4) in pixels of the frame, share that is visible (N,)."""
    view = camera.view(number)
    rows = PHOTOGRAPHS[f"{view.photograph}.jpg"]
    corners = np.array([row[1:] for row in rows], np.float64).reshape(-1, 2)
    whole = (corners @ view.matrix[:, :2].T + view.matrix[:, 2]).reshape(-1, 4)
    cut = whole.clip(0, [*camera.size, *camera.size])
    visible = (cut[:, 2:] - cut[:, :2]).prod(1) / (whole[:, 2:] - whole[:, :2]).prod(1)
    keep = visible >= HARDLY_VISIBLE
    kinds = np.array([CLASSES.index(row[0]) for row in rows], np.int64)
    return kinds[keep], cut[keep].astype(np.float32), visible[keep]


def main() -> None:
    parser = ArgumentParser(prog="python -m services.training.scenes", description=__doc__)
    parser.add_argument("--model", default=DEMO, help="network of the demo's classes (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=120, help="of each scene (default: %(default)s)")
    parser.add_argument("--every", type=int, default=11, help="only every n-th frame (default: %(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    network = load_model(find_weights(options.model))
    table = Table("scene", "frames", "complete", "objects", "found", "false")
    for scene in SCENES:
        total = SceneCount(0, 0, 0, 0, 0)
        for seed in (0, 11):
            frames = range(0, options.frames // 2 * options.every, options.every)
            total += count(SplitDetector(network), VirtualCamera(scene=scene, seed=seed), frames)
        figures = total.frames, total.complete, total.objects, total.found, total.false
        table.add_row(scene, *map(str, figures))
    Console(markup=False, emoji=False).print(table)


if __name__ == "__main__":
    main()
