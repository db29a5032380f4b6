"""What a file is that was given as weights, by its first bytes: the name says little, and people rename files."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

_HEAD_BYTES = 4096

# By what the file begins with. `(?s)` lets a dot stand for any byte.
_KINDS = tuple(
    (re.compile(pattern), kind)
    for pattern, kind in (
        (rb"\Z", "empty; fetch it again"),
        (
            rb"version https://git-lfs",
            "a Git LFS pointer, a text that stands for the weights; fetch them with 'git lfs pull' where it was "
            "cloned, or download the file itself",
        ),
        (
            rb"(?i)\s*<(!doctype html|html|head|body)",
            "a web page, saved in place of the weights; the link leads to a page about them, or to a login: download "
            "the file itself",
        ),
        (
            rb"(?s)\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19",
            "from before PyTorch 1.6, or saved in its old form; re-save it with torch.save(torch.load(path), path) "
            "and a newer one",
        ),
        (rb"(?s)\x80[\x02-\x05]", "a plain pickle; save the network with torch.save({'model': model}, path)"),
        (
            rb"(?s)\x08[\x03-\x1f][\x12\x1a\x22\x28\x32\x3a\x42]",
            "an ONNX export; use the .pt file it was exported from",
        ),
        (rb"(?s)....TFL3", "a TensorFlow Lite export; use the .pt file it was exported from"),
        (rb"(?s)\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras saves; weights are PyTorch's .pt files here"),
        (rb"(?s)\x08[\x01\x02]\x12", "a network of TensorFlow; use the .pt file it was exported from"),
        (rb"(?s)[fp]trt|.{4}\{\"description\"", "a TensorRT engine; use the .pt file it was exported from"),
        (rb"\s*<\?xml[^>]*>\s*<net", "an OpenVINO export; use the .pt file it was exported from"),
        (rb"(?s).{257}ustar", "a tar archive; unpack it and give the .pt file that is in it"),
        (
            rb"(?s)\x1f\x8b|BZh[1-9]|\xfd7zXZ\x00|\x28\xb5\x2f\xfd|7z\xbc\xaf\x27\x1c|Rar!\x1a",
            "compressed; unpack it and give the .pt file that is in it",
        ),
        (rb"(?s)\x93NUMPY", "an array of NumPy's; weights are PyTorch's .pt files"),
        (rb"GGUF", "a GGUF file, of a language model; use a YOLOv5 checkpoint"),
        (
            rb"(?s)\xff\xd8\xff|\x89PNG|GIF8|BM.{12}\x28|RIFF....(WEBP|AVI )|.{4}ftyp|\x1aE\xdf\xa3",
            "a picture or a video; give the weights, a .pt file",
        ),
        (rb"(?s)\x00{64}", "full of zeros, as an interrupted download leaves it; fetch it again"),
        (rb"PK\x03\x04", "a checkpoint cut short or damaged; fetch it again"),
    )
)
_ENDINGS = {  # of what has no first bytes of its own
    ".weights": "weights of Darknet; use a YOLOv5 checkpoint in PyTorch's form",
    ".bin": "no PyTorch checkpoint; use the .pt file",
    ".mlmodel": "a Core ML export; use the .pt file it was exported from",
    ".engine": "a TensorRT engine; use the .pt file it was exported from",
    ".onnx": "an ONNX export; use the .pt file it was exported from",
    ".pb": "a network of TensorFlow; use the .pt file it was exported from",
    ".yaml": "the description of a network, without its weights; give a .pt file",
    ".yml": "the description of a network, without its weights; give a .pt file",
}
_CUT_SHORT = "no whole PyTorch checkpoint: not the end of one is there; fetch it again"


def what_it_is(path: Path) -> str:
    """What a file that is no zip file is instead of a checkpoint, and what to do: to follow "FILE is ".

    Raises OSError.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    ending = _ENDINGS.get(path.suffix.lower())
    if ending is not None and not head.startswith(b"PK"):
        return ending
    return _kind(head) or _CUT_SHORT


def foreign_kind(path: Path) -> str | None:
    """As `what_it_is`, by the first bytes alone; None where they may well be a file of weights."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    return None if head.startswith((b"PK", b"\x80")) else _kind(head)


def _kind(head: bytes) -> str | None:
    for pattern, kind in _KINDS:
        if pattern.match(head):
            return kind
    if is_text(head):
        return "a text, not a checkpoint; download the file itself, whose size is megabytes"
    return None


def is_text(head: bytes) -> bool:
    """Whether bytes from the start of a file are text: printable ASCII, or UTF-8, and white space."""
    text = head.decode(errors="ignore")
    return len(text.encode()) >= len(head) - 3 and all(
        character.isprintable() or character.isspace() for character in text
    )


def is_safetensors(path: Path) -> bool:
    """Whether a file is there that begins as safetensors do: with the size of a header, and the JSON that it is."""
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError:
        return False
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32


def zip_kind(archive: zipfile.ZipFile) -> str:
    """What a zip file without a PyTorch checkpoint in it is, and what to do: to follow "FILE is "."""
    names = archive.namelist()
    if any(name.endswith("constants.pkl") for name in names):
        return "a TorchScript export; use the .pt file it was exported from"
    if any(name.endswith((".pt", ".pth", ".safetensors")) for name in names):
        return "a zip archive; unpack it and give the .pt file that is in it"
    if any(name.endswith("model.weights.h5") for name in names):
        return "a network of Keras; weights are PyTorch's .pt files here"
    if names and all(name.endswith(".npy") for name in names):
        return "arrays of NumPy's; weights are PyTorch's .pt files"
    if any(name.endswith(("archive_format", "serialized_exported_program.json")) for name in names):
        return "an export of torch.export; use the .pt file it was exported from"
    return "a zip file, but not a PyTorch checkpoint: it has no data.pkl"
