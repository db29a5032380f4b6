from __future__ import annotations

import os

import cv2
import numpy as np
import pytest
import torch
from structlog.testing import capture_logs

from services import loading
from services.cli import main
from services.detector.settings import DetectorSettings
from services.errors import Exit, SettingsError
from services.loading import choose_engine, find_network, load_network
from services.torch_devices import choose_device
from services.torch_loading import find_model
from stream.errors import MissingWeights
from tests.stream.network import legacy


@pytest.mark.parametrize("engine", ["onnxruntime", "torch"])
def test_loads_what_is_configured_and_leaves_arithmetic_alone(weights, engine):
    """Bitstreams are defined in IEEE arithmetic, which an engine could switch to flushing small numbers to zero."""
    before = torch.get_num_threads()
    given = {"model": str(weights), "threads": before + 1, "device": "cpu", "engine": engine}
    network = load_network(DetectorSettings.load(given))
    assert network.name == "random"
    assert network.model.device == "cpu"
    head = network.model.head("0", (32, 32))
    head(np.zeros((32, 32, 3), np.uint8))
    if engine == "torch":
        assert torch.get_num_threads() == before + 1
        torch.set_num_threads(before)
    else:
        assert head._session._session.get_session_options().intra_op_num_threads == before + 1
    assert np.float32(1e-40) * np.float32(0.5) > 0
    assert (torch.tensor([1e-40]) * 0.5).item() > 0


@pytest.mark.parametrize("find", [find_network, find_model])
def test_tells_of_classes_without_names(tmp_path, capfd, find):
    model = legacy.Model(legacy.description("n", 2))
    for names, warned in ((["cat", "dog"], False), ({"cat", "dog"}, True), ([], True), (["cat", None], True)):
        model.names = names
        legacy.save(model, tmp_path / "model.pt")
        with capture_logs() as logs:
            loaded = find(str(tmp_path / "model.pt"))
        assert loaded.names[1] in ("dog", "class1")
        assert ["does not name all its classes" in log["event"] for log in logs] == [True] * warned


def test_a_name_that_is_not_utf8_can_be_sent_and_counted(weights, tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.pt")
    path.write_bytes(weights.read_bytes())
    network = load_network(DetectorSettings.load({"model": str(path)}))
    assert network.name == r"caf\udce9"


@pytest.mark.parametrize(
    "command",
    [
        ["detector", "--port", "0"],
        ["camera", "--source", "demo", "--metrics-port", "0"],
        ["evaluate", "--data", "IMAGES", "--codec", "rle"],
        ["advise", "--link-kbps", "100"],
        ["points", "--size", "64"],
        ["demo", "--no-open"],
    ],
    ids=lambda command: command[0],
)
def test_every_command_refuses_what_cannot_compute_by_name(tmp_path, capsys, command):
    model = legacy.Model(legacy.description("n", 2))
    with torch.no_grad():
        model.model[24].m[0].bias[0] = float("nan")
    path = legacy.save(model, tmp_path / "model.pt")
    cv2.imwrite(str(tmp_path / "0.png"), np.zeros((32, 32, 3), np.uint8))
    arguments = [str(tmp_path) if argument == "IMAGES" else argument for argument in command]
    assert main([*arguments, "--model", str(path)]) == Exit.WEIGHTS
    assert "model.24.m.0.bias holds numbers that are not finite" in capsys.readouterr().err


def test_says_where_weights_may_come_from(tmp_path):
    with pytest.raises(MissingWeights, match=r"none\.pt"):
        load_network(DetectorSettings.load({"model": str(tmp_path / "none.pt")}))


def test_device():
    assert choose_device("cpu") == "cpu"
    assert choose_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")


GPU = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize(
    ("engine", "device", "chosen"),
    [
        ("auto", "cpu", ("onnxruntime", "cpu")),
        ("auto", "auto", ("torch" if GPU == "cuda" else "onnxruntime", GPU)),
        ("auto", "meta", ("torch", "meta")),
        ("onnxruntime", "auto", ("onnxruntime", "cpu")),
        ("torch", "cpu", ("torch", "cpu")),
        ("torch", "auto", ("torch", GPU)),
        ("torch-half", "cpu", ("torch-half", "cpu")),
    ],
)
def test_engine(engine, device, chosen):
    assert choose_engine(engine, device) == chosen


def test_a_gpu_is_looked_for_where_there_is_a_driver(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: asked.append(1) or True)
    monkeypatch.setattr(loading, "_GPU_DRIVERS", (str(tmp_path / "absent"),))
    assert choose_engine("auto", "auto") == ("onnxruntime", "cpu")
    assert not asked
    monkeypatch.setattr(loading, "_GPU_DRIVERS", (str(tmp_path / "absent"), str(tmp_path)))
    assert choose_engine("auto", "auto") == ("torch", "cuda")
    assert asked


def test_onnx_runtime_has_no_gpu():
    with pytest.raises(SettingsError, match="computes on the CPU, not on 'cuda'"):
        choose_engine("onnxruntime", "cuda")
