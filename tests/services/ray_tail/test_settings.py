"""What a detector may be told of Ray, and what it refuses before anything starts."""

from __future__ import annotations

import re

import pytest

from services.commands.detector_settings import DetectorProgramSettings
from services.errors import SettingsError
from services.extras import MissingExtra
from services.ray_tail.settings import MAX_REPLICAS, Replicas

RAY = {"tail": "ray", "ray_private_network": True}


def load(**settings):
    return DetectorProgramSettings.load(settings)


def test_tails_are_in_the_process_unless_told_otherwise():
    settings = load()
    assert (settings.tail, settings.replicas, settings.ray_gpus) == ("local", Replicas(1, 1), 0)


@pytest.mark.parametrize(
    ("text", "replicas"),
    [
        ("1", (1, 1)),
        ("2:8", (2, 8)),
        ("3:3", (3, 3)),
        (f"1:{MAX_REPLICAS}", (1, MAX_REPLICAS)),
    ],
)
def test_replicas_are_a_number_or_a_range(text, replicas):
    assert load(**RAY, ray_replicas=text).replicas == replicas


@pytest.mark.parametrize("text", ["", "0", "0:2", "2:1", "1:2:3", "-1", "1:", "many", f"{MAX_REPLICAS + 1}"])
def test_other_numbers_of_replicas_are_refused(text):
    with pytest.raises(SettingsError, match="--ray-replicas"):
        load(**RAY, ray_replicas=text)


@pytest.mark.parametrize("address", ["auto", "10.0.0.5:6379", "ray-head.example:6379", "[fd00::1]:6379"])
def test_a_cluster_has_an_address(address):
    assert load(**RAY, ray_address=address).ray_address == address


@pytest.mark.parametrize("address", ["ray://10.0.0.5:10001", "10.0.0.5", "local", "", "a b:1"])
def test_an_address_that_does_not_do_is_refused(address):
    with pytest.raises(SettingsError, match="--ray-address"):
        load(**RAY, ray_address=address)


@pytest.mark.parametrize("gpus", [0, 0.25, 1, 4])
def test_a_replica_has_a_share_of_a_gpu_or_several(gpus):
    assert load(**RAY, ray_gpus=gpus).ray_gpus == gpus


@pytest.mark.parametrize("gpus", [-1, 1.5, 65])
def test_other_shares_are_refused(gpus):
    with pytest.raises(SettingsError, match="--ray-gpus"):
        load(**RAY, ray_gpus=gpus)


def test_ray_is_refused_where_nobody_said_that_the_network_is_private():
    with pytest.raises(SettingsError, match=re.escape("say --ray-private-network")):
        load(tail="ray")


@pytest.mark.parametrize(
    ("flag", "setting"),
    [
        ("--ray-address", {"ray_address": "auto"}),
        ("--ray-name", {"ray_name": "north"}),
        ("--ray-replicas", {"ray_replicas": "2"}),
        ("--ray-gpus", {"ray_gpus": 1}),
        ("--ray-private-network", {"ray_private_network": True}),
    ],
)
def test_what_is_of_ray_is_refused_without_it(flag, setting):
    with pytest.raises(SettingsError, match=f"^{flag}: is of no use without --tail ray"):
        load(**setting)


def test_step_maps_are_refused_with_it():
    with pytest.raises(SettingsError, match=r"^--feedback"):
        load(**RAY, feedback=4)


def test_it_takes_the_extra(monkeypatch):
    monkeypatch.setattr("services.extras.find_spec", lambda module: None if module == "ray" else object())
    load().check_machine()
    with pytest.raises(MissingExtra, match=re.escape("--tail ray needs the extra 'ray'")):
        load(**RAY).check_machine()
