"""The network's file: present, the one that was released or exported, and readable. Nothing in it is executed."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal, TypeAlias

from services.doctor.finding import Finding, doubtful, fine, wrong
from services.loading import LoadedModel, load_network
from services.settings import ServiceSettings
from stream.network.download import find_weights, released_sha256, weights_path
from stream.network.exported import HEAD, TAIL, ExportedNetwork
from stream.network.names import EXPORT_DESCRIPTION, MODELS, is_path

Half: TypeAlias = Literal["head.onnx", "tail.onnx"]
"""What a camera runs, or a detector, of an exported network."""
CAMERA_HALF: Half = HEAD
DETECTOR_HALF: Half = TAIL


def look_at_weights(settings: ServiceSettings, half: Half) -> tuple[Finding, LoadedModel | None]:
    """What is to be said of the network's file, and the network where it can be used.

    Fetches nothing. Reads and hashes the file, which takes a second: for a thread.
    Raises WeightsError or CheckpointError, whose messages say what to do.
    """
    model, path = settings.model, weights_path(settings.model, settings.cache)
    if is_named(model) and not path.is_file():
        return doubtful(
            f"{path} is not there yet: it is fetched at the first start",
            f"splitcast points --model {model} fetches it into the default folder now",
            path=str(path),
        ), None
    if not is_named(model):
        path = find_weights(model)
    if path.is_dir():
        return _exported(settings, path, half)
    size, digest = path.stat().st_size, _sha256(path)
    released = released_sha256(model)
    if released and digest != released:
        return wrong(
            f"{path} is not the released file: its SHA-256 is {digest}, and not {released}",
            f"rm {path}: the next start fetches it anew; or give its path as --model, if it is meant",
            path=str(path),
            sha256=digest,
        ), None
    network = load_network(settings)
    known = "as released" if released else "no release of it is known"
    return fine(
        f"{path}, {size / 1e6:.1f} MB, SHA-256 {digest[:12]} ({known}); weights {network.model.weights_hash[:12]}",
        path=str(path),
        sha256=digest,
        weights=network.model.weights_hash,
    ), network


def is_named(model: str) -> bool:
    """Whether it is one that is fetched where it is not there."""
    return model in MODELS and not is_path(model)


def _exported(settings: ServiceSettings, folder: Path, half: Half) -> tuple[Finding, LoadedModel | None]:
    """An exported network, of which only the half that this machine runs has to be there."""
    description = ExportedNetwork(folder).description
    # The one that is run first; what the description says nothing of is none that it describes.
    files: dict[Half, str | None] = {half: None, **description.files}
    for name, digest in files.items():
        file = folder / name
        if not file.is_file() and name != half:
            continue
        if not file.is_file() or _sha256(file) != digest:
            what = "is not the file" if file.is_file() else "is missing: it is one of those"
            return wrong(
                f"{file} {what} that {EXPORT_DESCRIPTION} describes",
                f"copy the folder anew, or export it again: splitcast export --model {description.model} "
                f"--split {description.split} --out {folder}",
                path=str(file),
            ), None
    network = load_network(settings)
    return fine(
        f"{folder}: {half} is the file that {EXPORT_DESCRIPTION} describes (SHA-256 "
        f"{description.files[half][:12]}); split {description.split}, weights {description.weights[:12]}",
        path=str(folder),
        sha256=description.files[half],
        weights=description.weights,
    ), network


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
