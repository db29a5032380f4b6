"""Finds the weights of a model: a given file, one fetched before, or the official release."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from stream.errors import DownloadFailed, MissingWeights, UnknownModel
from stream.network.names import DEMO, EXPORT_DESCRIPTION, MODELS, SAFETENSORS, is_path

BUNDLED_WEIGHTS = Path(__file__).parent / "bundled"
"""Folder of the networks that come with this package, as NAME.safetensors; the model card stands beside each."""

LEGACY_RELEASE = "https://github.com/ultralytics/yolov5/releases/download/v6.0"
ULTRALYTICS_RELEASE = "https://github.com/ultralytics/assets/releases/download/v8.3.0"

_SHA256 = {  # of the released files that are known; the others are only checked to be whole
    "yolov5n": "edd2e5cc4e3caa4b508168b51d9dc529da58b37813e0d2c8b49aba06aa3472dc",
}


def find_weights(model: str, cache: Path | None = None, base_url: str | None = None) -> Path:
    """Path of a model's weights, fetched with a progress bar if they are not there yet.

    `model` is `DEMO`, a path to a file or to the folder of an exported network, or one of `MODELS`. The last are kept
    in `cache`, by default the user's cache folder (`~/.cache/splitcast`), and come from `base_url` or else from their
    official release. A file appears under its name only once it is complete and, where the SHA-256 is known, found to
    be the released one.
    Raises UnknownModel, MissingWeights, DownloadFailed.
    """
    path = weights_path(model, cache)
    if model == DEMO or is_path(model):
        if not path.is_file() and not (path / EXPORT_DESCRIPTION).is_file():
            raise MissingWeights(path)
        return path
    release = base_url or (ULTRALYTICS_RELEASE if model.endswith("u") else LEGACY_RELEASE)
    return fetch(f"{release}/{model}.pt", f"{model}.pt", cache, _SHA256.get(model))


def weights_path(model: str, cache: Path | None = None) -> Path:
    """Where a model's weights are, or will be once they are fetched. Raises UnknownModel."""
    if model == DEMO:
        return BUNDLED_WEIGHTS / f"{DEMO}{SAFETENSORS}"
    if is_path(model):
        return Path(model).expanduser()
    if model not in MODELS:
        raise UnknownModel(model)
    return _cache_folder(cache) / f"{model}.pt"


def _cache_folder(cache: Path | None) -> Path:
    """The folder of weights that are fetched: `cache`, by default the user's."""
    import pooch  # and with it requests

    return cache or Path(pooch.os_cache("splitcast"))


def released_sha256(model: str) -> str | None:
    """SHA-256 of the released file, where it is known."""
    return _SHA256.get(model)


def fetch(
    url: str, name: str, cache: Path | None, sha256: str | None = None, *, sha256_prefix: str = ""
) -> Path:
    """Path of a checkpoint kept in `cache` as `name`, fetched with a progress bar if it is not there yet.

    It appears there only once it is whole and its SHA-256 is the given one, or begins with what is given of it.
    Raises DownloadFailed.
    """
    import pooch  # and with it requests: most starts fetch nothing

    folder = _cache_folder(cache)
    target = folder / name
    pooch.get_logger().setLevel("WARNING")  # the progress bar says it all

    def download(url: str, output: str, caller: Any) -> None:
        pooch.HTTPDownloader(progressbar=True)(url, output, caller)
        # A checkpoint is a zip file, whose directory stands at its end: one cut short, or a login page in its place,
        # is refused even where no hash is known.
        if not sha256_prefix and not zipfile.is_zipfile(output):
            raise ValueError("what came is not a whole checkpoint")
        if not pooch.file_hash(output).startswith(sha256_prefix):
            raise ValueError(f"the SHA-256 of what came does not begin with {sha256_prefix}")

    try:
        pooch.retrieve(url, sha256, target.name, folder, downloader=download)
    except (OSError, ValueError) as error:  # requests' errors are OSErrors, a wrong hash is a ValueError
        raise DownloadFailed(url, target, str(error)) from error
    return target
