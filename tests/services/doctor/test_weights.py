"""The network's file: the right one, another one, a changed one, and none."""

from __future__ import annotations

import json

import pytest

from services.doctor.settings import DoctorCameraSettings
from services.doctor.weights import CAMERA_HALF, DETECTOR_HALF, look_at_weights
from stream.errors import CheckpointError, MissingWeights
from stream.network import download
from stream.network.exported import HEAD, TAIL, write_export
from stream.network.names import EXPORT_DESCRIPTION
from stream.network.network import load_network


@pytest.fixture
def look(tmp_path):
    def look(model, half=CAMERA_HALF):
        settings = DoctorCameraSettings.load({"source": "demo", "model": str(model), "cache": str(tmp_path)})
        return look_at_weights(settings, half)

    return look


@pytest.fixture(scope="module")
def network(weights):
    return load_network(weights)


@pytest.fixture
def exported(network, tmp_path):
    write_export(network, "random", "4.m", tmp_path / "exported", software="test")
    return tmp_path / "exported"


def test_a_checkpoint(look, weights, network):
    finding, loaded = look(weights)
    assert (finding.level, loaded.model.weights_hash) == ("ok", network.weights_hash)
    assert finding.facts["weights"] == network.weights_hash


def test_weights_that_are_still_to_be_fetched_are_not_fetched(look, tmp_path):
    finding, loaded = look("yolov5n")
    assert (finding.level, loaded, list(tmp_path.iterdir())) == ("warning", None, [])
    assert "splitcast points --model yolov5n" in finding.advice


def test_a_kept_file_that_is_not_the_released_one(look, weights, tmp_path):
    (tmp_path / "yolov5n.pt").write_bytes(weights.read_bytes())
    finding, loaded = look("yolov5n")
    assert (finding.level, loaded) == ("error", None)
    assert "is not the released file" in finding.measured


def test_a_kept_file_that_is_the_released_one(look, weights, tmp_path, monkeypatch):
    (tmp_path / "yolov5n.pt").write_bytes(weights.read_bytes())
    finding, _ = look(weights)
    monkeypatch.setitem(download._SHA256, "yolov5n", finding.facts["sha256"])
    finding, loaded = look("yolov5n")
    assert (finding.level, loaded is not None) == ("ok", True)
    assert "as released" in finding.measured


def test_no_file(look, tmp_path):
    with pytest.raises(MissingWeights):
        look(tmp_path / "none.pt")


def test_a_damaged_checkpoint(look, weights, tmp_path):
    (tmp_path / "short.pt").write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(CheckpointError):
        look(tmp_path / "short.pt")


def test_an_exported_network(look, exported, network):
    finding, loaded = look(exported)
    assert (finding.level, loaded.model.weights_hash) == ("ok", network.weights_hash)


@pytest.mark.parametrize(("half", "other"), [(CAMERA_HALF, TAIL), (DETECTOR_HALF, HEAD)])
def test_the_other_half_may_be_missing(look, exported, half, other):
    (exported / other).unlink()
    assert look(exported, half)[0].level == "ok"


@pytest.mark.parametrize("half", [CAMERA_HALF, DETECTOR_HALF])
def test_the_half_that_is_run_may_not(look, exported, half):
    (exported / half).unlink()
    finding, loaded = look(exported, half)
    assert (finding.level, loaded) == ("error", None)
    assert "is missing" in finding.measured


def test_a_description_that_leaves_out_the_half_that_is_run(look, exported):
    description = json.loads((exported / EXPORT_DESCRIPTION).read_text())
    del description["files"][CAMERA_HALF]
    (exported / EXPORT_DESCRIPTION).write_text(json.dumps(description))
    assert look(exported)[0].level == "error"


@pytest.mark.parametrize("file", [HEAD, TAIL])
def test_a_tampered_file_is_found_before_anything_of_it_is_run(look, exported, file, monkeypatch):
    data = bytearray((exported / file).read_bytes())
    data[len(data) // 2] ^= 1
    (exported / file).write_bytes(data)
    monkeypatch.setattr("services.doctor.weights.load_network", lambda settings: pytest.fail("it was loaded"))
    finding, loaded = look(exported)
    assert (finding.level, loaded) == ("error", None)
    assert f"{file} is not the file that splitcast.json describes" in finding.measured
    assert "splitcast export" in finding.advice
