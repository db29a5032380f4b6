"""Calibrates the feature codec to a network and a split point on sample images: `splitcast calibrate`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from itertools import count
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from codec.feature.calibration import MIN_SAMPLES, CalibrationSample, calibrate
from services.calibration.settings import CalibrateSettings
from services.calibration.step_network import train_step_network
from services.evaluation.evaluate import tell
from services.evaluation.images import ImageFiles, folder_images, readable_images
from services.printable import printable
from services.settings import require_folder_of
from services.torch_devices import choose_device
from services.torch_loading import find_model
from stream.atomic_file import write_whole
from stream.canvas import canvas_for, parse_size
from stream.errors import SourceError
from stream.letterbox import PADDING, Letterbox
from stream.torch_network.model import Model
from stream.torch_network.sensitivity import fisher_samples


def run_calibrate(settings: CalibrateSettings) -> None:
    """Calibrate on the given images, write the profile to `--output` and print its hash.

    The same images, network and settings give the same profile. `--output` appears whole or not at all.
    Raises SettingsError, InvalidSize, SourceError, UnknownSplitPoint, WeightsError, CheckpointError,
    CalibrationError or OSError.
    """
    require_folder_of(settings.output, "--output")
    size = parse_size(settings.size)
    files = find_images(settings.images, settings.max_images)
    images = len(files.paths)
    tell(files.account(), notices := Console(stderr=True, markup=False, emoji=False))
    if images < MIN_SAMPLES:
        raise SourceError(f"calibration takes {MIN_SAMPLES} images or more; {settings.images} gives {images}")
    torch.set_num_threads(settings.threads)
    model = find_model(settings.model, choose_device(settings.device))
    # Neither dates nor paths: the profile's hash is to say what it was made from, not when or where.
    metadata: dict[str, str | int] = {
        "model": Path(settings.model).stem,
        "weights": model.weights_hash,
        "split": settings.split,
        "size": settings.size,
        "images": images,
        "draws": settings.draws,
        "variants": settings.variants,
        "seed": settings.seed,
        "software": f"splitcast {version('splitcast')}",
    }
    sampler = Sampler(model, settings.split, size, settings.draws, settings.seed)
    with Progress(console=notices) as progress:
        whole = progress.add_task("calibrating", total=None)
        pass_numbers = count(1)

        def samples() -> Iterable[CalibrationSample]:
            return progress.track(sampler.samples(files), images, description=f"pass {next(pass_numbers)}")

        variants: Iterable[CalibrationSample] = ()
        if settings.variants:
            variants_drawn = sampler.variant_samples(files, settings.variants)
            variants = progress.track(variants_drawn, images * settings.variants, description="variants")
        # This goes on for some time after the last picture.
        profile = calibrate(samples, train_step_network, metadata, settings.seed, variants)
        progress.update(whole, total=1, completed=1)
    packed = profile.pack()
    write_whole(settings.output, packed)
    print(f"{settings.output}: profile {profile.hash}, {len(packed)} bytes, of {images} images")


def find_images(source: Path, max_images: int | None = None) -> ImageFiles:
    """The images of a folder in the order of names, or of a text file that lists one path a line, relative to it.

    Raises SourceError.
    """
    if source.is_dir():
        return folder_images(source, most=max_images)
    return readable_images(source.name, _listed(source), most=max_images, place=printable(str(source)))


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


@dataclass(frozen=True, slots=True)
class Sampler:
    """Draws samples of pictures, one picture at a time.

    A picture's draws depend on the seed and its index alone, so that every pass gives the same samples.
    """

    model: Model
    split: str
    size: int | tuple[int, int]  # as `canvas_for` takes it
    draws: int
    seed: int

    def samples(self, pictures: Iterable[NDArray[np.uint8]]) -> Iterator[CalibrationSample]:
        """A sample of each picture, letterboxed as for inference."""
        for index, picture in enumerate(pictures):
            yield self._sample(picture, np.random.default_rng((self.seed, index)))

    def variant_samples(
        self, pictures: Iterable[NDArray[np.uint8]], variants: int
    ) -> Iterator[CalibrationSample]:
        """Samples of so many variants of each picture."""
        for index, picture in enumerate(pictures):
            for number in range(1, variants + 1):  # not from 0, which would seed as the picture itself does
                rng = np.random.default_rng((self.seed, index, number))
                yield self._sample(vary(picture, rng), rng)

    def _sample(self, picture: NDArray[np.uint8], rng: np.random.Generator) -> CalibrationSample:
        frame = picture.shape[0], picture.shape[1]
        canvas = Letterbox(frame, canvas_for(self.size, *frame, self.model.stride)).apply(picture)
        return fisher_samples(self.model, self.split, canvas, self.draws, rng)


def vary(picture: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """The picture from half to twice as near and, as often as not, mirrored: uint8 (H, W, 3) as before.

    What is nearer is cut off at random, what is farther stands in gray at random.
    """
    height, width = picture.shape[:2]
    scale = 2 ** rng.uniform(-1, 1)
    left, top = rng.uniform() * (1 - scale) * width, rng.uniform() * (1 - scale) * height
    if rng.integers(2):
        picture = picture[:, ::-1]
    matrix = np.array([[scale, 0, left], [0, scale, top]])
    varied = cv2.warpAffine(
        np.ascontiguousarray(picture), matrix, (width, height), borderValue=(PADDING,) * 3
    )
    return np.asarray(varied, np.uint8)
