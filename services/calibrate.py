"""Calibrates the feature codec to a network and a split point on sample images: `splitcast calibrate`."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from itertools import count
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from codec.calibration import MIN_SAMPLES, Sample, calibrate
from services.config import ConfigError
from services.footage import read_images
from services.network import choose_device
from services.sensitivity import fisher_samples
from stream.letterbox import Letterbox, canvas_for, parse_size
from stream.model import Model, load_model
from stream.source import SourceError
from stream.weights import find_weights


def run_calibrate(options: Namespace) -> None:
    """Calibrate on the given images, write the profile to `--output` and print its hash.

    The same images, network and settings give the same profile. `--output` appears whole or not at all.
    Raises ConfigError, InvalidSize, SourceError, UnknownSplitPoint, WeightsError, CheckpointError,
    CalibrationError or OSError.
    """
    if min(options.draws, options.threads, 1 if options.max_images is None else options.max_images) < 1:
        raise ConfigError("--draws, --threads and --max-images take numbers from 1")
    if options.seed < 0:
        raise ConfigError("--seed takes a number from 0")
    if not options.output.absolute().parent.is_dir():
        raise ConfigError(f"--output: there is no folder {options.output.absolute().parent}")
    size = parse_size(options.size)
    images, _ = open_images(options.images, options.max_images)
    if images < MIN_SAMPLES:
        raise SourceError(f"calibration takes {MIN_SAMPLES} images or more; {options.images} gives {images}")
    torch.set_num_threads(options.threads)
    model = load_model(find_weights(options.model), choose_device(options.device))
    # Neither dates nor paths: the profile's hash is to say what it was made from, not when or where.
    metadata: dict[str, str | int] = {
        "model": Path(options.model).stem,
        "weights": model.weights_hash,
        "split": options.split,
        "size": options.size,
        "images": images,
        "draws": options.draws,
        "seed": options.seed,
        "software": f"splitcast {version('splitcast')}",
    }
    with Progress(console=Console(stderr=True)) as progress:
        whole = progress.add_task("calibrating", total=None)
        passes = count(1)

        def samples() -> Iterable[Sample]:
            _, pictures = open_images(options.images, options.max_images)
            drawn = draw_samples(model, options.split, pictures, size, draws=options.draws, seed=options.seed)
            return progress.track(drawn, images, description=f"pass {next(passes)}")

        profile = calibrate(samples, metadata, options.seed)  # fits for some time after the last pass
        progress.update(whole, total=1, completed=1)
    packed = profile.pack()
    _write(options.output, packed)
    print(f"{options.output}: profile {profile.hash}, {len(packed)} bytes, of {images} images")


def open_images(source: Path, max_images: int | None = None) -> tuple[int, Iterator[NDArray[np.uint8]]]:
    """Number of images and the images, uint8 (H, W, 3), BGR, read while they are iterated over.

    `source` is a folder, taken in the order of names, or a text file that lists one path a line, relative to it.
    Raises SourceError here or while reading.
    """
    if source.is_dir():
        footage = read_images(source, max_frames=max_images)
        return footage.expected, (picture.image for picture in footage.pictures)
    paths = _listed(source)[:max_images]
    return len(paths), (_read(path, source) for path in paths)


def _listed(source: Path) -> list[Path]:
    try:
        lines = source.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(
            f"cannot read {source} ({error}); give a folder of images, or a text file with one path a line"
        ) from None
    paths = [source.parent / line.strip() for line in lines if line.strip()]
    for path in paths:
        if not path.is_file():
            raise SourceError(f"{source} lists {path}, which is no file")
    return paths


def _read(path: Path, source: Path) -> NDArray[np.uint8]:
    image = cv2.imread(str(path))
    if image is None:
        raise SourceError(f"{path} is no image that OpenCV can read; take it out of {source}")
    return np.asarray(image, np.uint8)


def draw_samples(
    model: Model,
    split: str,
    pictures: Iterable[NDArray[np.uint8]],
    size: int | tuple[int, int],
    *,
    draws: int,
    seed: int,
) -> Iterator[Sample]:
    """Samples of pictures, each letterboxed as for inference; `size` is what `canvas_for` takes.

    A picture's draws depend on the seed and its place alone, so that every pass gives the same samples.
    Holds one picture at a time.
    """
    for place, picture in enumerate(pictures):
        frame = picture.shape[0], picture.shape[1]
        canvas = Letterbox(frame, canvas_for(size, *frame)).apply(picture)
        yield fisher_samples(model, split, canvas, draws, np.random.default_rng((seed, place)))


def _write(target: Path, data: bytes) -> None:
    partial = target.with_name(f".{target.name}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
