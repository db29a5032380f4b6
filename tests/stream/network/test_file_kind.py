"""A file that is no checkpoint is named for what it is, and the message says what to do."""

from __future__ import annotations

import io
import pickle
import tarfile
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from stream.errors import UnreadableCheckpoint
from stream.network.network import load_network


def tarred() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        member = tarfile.TarInfo("best.pt")
        member.size = 4
        archive.addfile(member, io.BytesIO(b"1234"))
    return stream.getvalue()


def zipped(*names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, b"1234")
    return stream.getvalue()


def old_form() -> bytes:
    stream = io.BytesIO()
    torch.save({"a": 1}, stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


def array() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.zeros(3))
    return stream.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 4100000\n"
JPEG = cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes()


@pytest.mark.parametrize(
    ("content", "kind", "way_out"),
    [
        (b"", "empty", "fetch it again"),
        (LFS, "a Git LFS pointer", "git lfs pull"),
        (b"<!DOCTYPE html>\n<html><body>Sign in", "a web page", "download the file itself"),
        (b"\n <HTML>", "a web page", "login"),
        (b'{"message": "Not Found"}', "a text", "download the file itself"),
        ("Zugriff verweigert: für Sie gesperrt".encode(), "a text", "download"),
        (old_form(), "from before PyTorch 1.6", "re-save it with torch.save"),
        (pickle.dumps({"a": 1}), "a plain pickle", "torch.save({'model': model}, path)"),
        (b"\x08\x07\x12\x07pytorch\x1a\x052.1.0:\xf2", "an ONNX export", "the .pt file it was exported from"),
        (b"\x08\x01\x12\xf0\x01\x0a\x40", "a network of TensorFlow", ".pt"),
        (b"\x1c\x00\x00\x00TFL3\x14\x00", "a TensorFlow Lite export", ".pt"),
        (b"\x89HDF\r\n\x1a\n\x00\x00", "an HDF5 file", ".pt"),
        (b'<?xml version="1.0"?>\n<net name="main_graph">', "an OpenVINO export", ".pt"),
        (b"ftrt\x00\x00", "a TensorRT engine", ".pt"),
        (tarred(), "a tar archive", "unpack it"),
        (b"\x1f\x8b\x08\x00" + bytes(100), "compressed", "unpack it"),
        (b"7z\xbc\xaf\x27\x1c\x00", "compressed", "unpack it"),
        (array(), "an array of NumPy's", ".pt"),
        (JPEG, "a picture or a video", ".pt"),
        (b"\x00\x00\x00\x20ftypisom", "a picture or a video", ".pt"),
        (bytes(100_000), "full of zeros", "fetch it again"),
        (zipped("archive/data.pkl")[:-30], "a checkpoint cut short or damaged", "fetch it again"),
        (b"\x07\x93\x01\xfe" * 50, "no whole PyTorch checkpoint", "fetch it again"),
        (
            zipped("m/data.pkl", "m/constants.pkl", "m/code/__torch__.py"),
            "a TorchScript export",
            "the .pt file it was exported from",
        ),
        (zipped("weights/best.pt"), "a zip archive", "unpack it"),
        (zipped("model.weights.h5", "config.json"), "a network of Keras", ".pt"),
        (zipped("a.npy", "b.npy"), "arrays of NumPy's", ".pt"),
        (zipped("yolo/archive_format", "yolo/models/model.json"), "an export of torch.export", ".pt"),
        (zipped("readme.txt"), "a zip file, but not a PyTorch checkpoint", ""),
    ],
    ids=lambda value: value if isinstance(value, str) and value.startswith(("a", "e", "f", "n")) else "",
)
@pytest.mark.parametrize("name", ["model.pt", "model.PTH"])
def test_a_file_is_named_for_what_it_is(tmp_path, name, content, kind, way_out):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableCheckpoint) as caught:
        load_network(tmp_path / name)
    message = str(caught.value)
    assert message.startswith((f"{tmp_path / name} is {kind}", f"{tmp_path / name}: {kind}"))
    assert way_out in message


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("yolov5n.onnx", "an ONNX export"),
        ("yolov5n.yaml", "the description of a network, without its weights"),
        ("yolov5.weights", "weights of Darknet"),
        ("best.mlmodel", "a Core ML export"),
        ("best.engine", "a TensorRT engine"),
        ("frozen.pb", "a network of TensorFlow"),
    ],
)
def test_a_name_tells_what_first_bytes_do_not(tmp_path, name, kind):
    (tmp_path / name).write_bytes(b"\x07\x93\x01\xfe" * 50)
    with pytest.raises(UnreadableCheckpoint, match=f"{name} is {kind}"):
        load_network(Path(tmp_path / name))
