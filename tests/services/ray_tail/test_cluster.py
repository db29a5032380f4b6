"""What a detector makes of its application in Ray Serve, which it may share with another by mistake."""

from __future__ import annotations

import warnings
from importlib import import_module
from importlib.util import find_spec
from types import SimpleNamespace

import pytest

from services.commands.detector_settings import DetectorProgramSettings
from services.ray_tail.errors import RayFailed
from tests.ports import free_port

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed (extra ray)")

NAME = "north"


class FakeServe:
    """Applications of a cluster: the deployments of each, with so many replicas that run."""

    def __init__(self, applications: dict[str, dict[str, int]]) -> None:
        self.applications = applications
        self.deleted: list[str] = []

    def status(self) -> SimpleNamespace:
        return SimpleNamespace(
            applications={
                name: SimpleNamespace(
                    deployments={
                        deployment: SimpleNamespace(replica_states={"RUNNING": count} if count else {})
                        for deployment, count in deployments.items()
                    }
                )
                for name, deployments in self.applications.items()
            }
        )

    def delete(self, name: str) -> None:
        self.deleted.append(name)


@pytest.fixture
def module():
    """With Ray, which uses what Pydantic will not have any more."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_module("services.ray_tail.cluster")


@pytest.fixture
def cluster(module, monkeypatch):
    """That of a detector in a cluster that is there, whose Ray ends when it is told to."""
    settings = DetectorProgramSettings.load(
        {"tail": "ray", "ray_private_network": True, "ray_address": "auto", "ray_name": NAME}
    )
    monkeypatch.setattr(
        module, "ray", SimpleNamespace(is_initialized=lambda: True, shutdown=lambda: ended.append(True))
    )
    ended = []
    cluster = module.Cluster(settings, None)
    yield cluster
    cluster.close()
    assert ended


def serving(module, monkeypatch, applications) -> FakeServe:
    serve = FakeServe(applications)
    monkeypatch.setattr(module, "serve", serve)
    return serve


def test_counts_its_own_replicas_and_ends_them(cluster, module, monkeypatch):
    serve = serving(module, monkeypatch, {NAME: {cluster._deployment: 2}, "south": {"tail-1": 5}})
    assert cluster.running() == 2
    cluster.close()
    assert serve.deleted == [NAME]


@pytest.mark.parametrize("applications", [{}, {"south": {"tail-1": 5}}, {NAME: {}}])
def test_an_application_that_is_not_there_has_none(cluster, module, monkeypatch, applications):
    serve = serving(module, monkeypatch, applications)
    assert cluster.running() == 0
    cluster.close()
    assert not serve.deleted


def test_another_detectors_replicas_are_neither_used_nor_ended(cluster, module, monkeypatch):
    other = module.Cluster(cluster._settings, None)
    assert other._deployment != cluster._deployment
    serve = serving(module, monkeypatch, {NAME: {other._deployment: 2}})
    with pytest.raises(RayFailed, match=f"^--ray-name: another detector has taken the name {NAME} "):
        cluster.running()
    cluster.close()
    assert not serve.deleted


@pytest.mark.parametrize("host", ["127.0.0.1", "a..b"])
def test_an_address_where_no_cluster_is_is_refused_at_once(module, host):
    address = f"{host}:{free_port()}"
    settings = DetectorProgramSettings.load(
        {"tail": "ray", "ray_private_network": True, "ray_address": address}
    )
    with pytest.raises(RayFailed, match=f"^--ray-address: no cluster answers at {address}: "):
        module.Cluster(settings, None).connect(1)
