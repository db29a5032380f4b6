"""The zip file that a checkpoint is: its members and their sizes are checked before anything is read."""

from __future__ import annotations

import reprlib
import zipfile
from typing import IO, Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from stream.errors import UnreadableCheckpoint
from stream.network.file_kind import zip_kind
from stream.network.pickle_reader import StoredTensor

# A yolov5x with its averaged copy and its optimizer describes itself in 0.5 MB and 0.2 million steps.
_MAX_PICKLE_BYTES = 4 << 20
MAX_DIRECTORY_BYTES = 1 << 20  # the zip file's list of members; that yolov5x needs 0.2 MB


def open_archive(file: IO[bytes]) -> zipfile.ZipFile:
    """The zip file, once its list of members is known to be short: `ZipFile` parses any length at once."""
    end = zipfile._EndRecData(file)  # type: ignore[attr-defined] # the public API offers no look before parsing
    if end and end[zipfile._ECD_SIZE] > MAX_DIRECTORY_BYTES:  # type: ignore[attr-defined]
        raise UnreadableCheckpoint(
            f"the zip file's list of members is longer than {MAX_DIRECTORY_BYTES} bytes"
        )
    return zipfile.ZipFile(file)


class CheckpointArchive:
    """The members of an open checkpoint. Raises UnreadableCheckpoint for one that PyTorch would not have written."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        members = {info.filename: info for info in archive.infolist()}
        pickles = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise UnreadableCheckpoint(zip_kind(archive))
        self._root = pickles[0].removesuffix("data.pkl")
        if f"{self._root}constants.pkl" in members:
            raise UnreadableCheckpoint(zip_kind(archive))
        # PyTorch stores without compression, so the parts together cannot be larger than the file: no zip bombs.
        if any(info.compress_type != zipfile.ZIP_STORED for info in members.values()):
            raise UnreadableCheckpoint(
                "the zip file is compressed, which PyTorch never does; use the original file"
            )
        if any(info.compress_size != info.file_size for info in members.values()):
            raise UnreadableCheckpoint("the zip file gives a member two sizes")
        self.size = sum(info.file_size for info in members.values())
        archive_file = archive.fp
        assert archive_file is not None
        if self.size > archive_file.seek(0, 2):
            raise UnreadableCheckpoint("the parts of the zip file are together larger than the file")
        self._members = members
        folder = f"{self._root}data/"
        self._storages = {
            name.removeprefix(folder): info for name, info in members.items() if name.startswith(folder)
        }
        self._loaded: dict[str, NDArray[np.generic]] = {}  # storages, which tensors may share
        if self._read(f"{self._root}byteorder", limit=16, default=b"little") != b"little":
            raise UnreadableCheckpoint("saved on a big-endian machine; re-save it on a little-endian one")

    def pickle(self) -> bytes:
        """The program that describes the objects. Raises UnreadableCheckpoint for one of excessive size."""
        return self._read(f"{self._root}data.pkl", limit=_MAX_PICKLE_BYTES)

    def storage(self, key: str, dtype: np.dtype[Any], elements: int) -> str:
        """Member that holds a storage, once its size is known to be what the pickle declares."""
        info = self._storages.get(key)
        if info is None or elements < 0 or info.file_size != elements * dtype.itemsize:
            raise UnreadableCheckpoint(
                f"tensor storage {reprlib.repr(key)} is missing or not of the declared size"
            )
        return info.filename

    def load(self, stored: StoredTensor) -> NDArray[np.generic]:
        """A tensor, which is not to be written to: those of one storage share its memory."""
        if stored.elements == 0:
            return np.empty(stored.shape, stored.dtype)
        if stored.member not in self._loaded:
            data = self._archive.read(stored.member)
            self._loaded[stored.member] = np.frombuffer(data, stored.dtype)
        values = self._loaded[stored.member][stored.offset :]
        strides = [step * stored.dtype.itemsize for step in stored.stride]
        return as_strided(values, stored.shape, strides, writeable=False)

    def _read(self, member: str, limit: int, default: bytes | None = None) -> bytes:
        info = self._members.get(member)
        if info is None and default is not None:
            return default
        if info is None or info.file_size > limit:
            raise UnreadableCheckpoint(f"{member} is missing or larger than {limit} bytes")
        return self._archive.read(info)
