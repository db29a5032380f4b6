"""The memory that cameras are promised, and what is said where it is too little."""

from __future__ import annotations

import re

import pytest

from codec.layout import TensorSpec
from services.detector.memory import MIB, MemoryBudget, camera_bytes, tail_bytes
from services.detector.settings import DetectorSettings
from services.errors import SettingsError
from stream.errors import SessionError
from stream.session.close_codes import CloseCode

SMALL = {"window": 1, "max_packet_mib": 1, "max_tensors_mib": 1, "max_profile_mib": 1, "tails": 2}


def test_a_camera_is_its_window_of_packets_and_three_frames():
    settings = DetectorSettings.load({"window": 8})
    more_packets = camera_bytes(settings, 2 * MIB, MIB) - camera_bytes(settings, MIB, MIB)
    assert more_packets == (8 + 2) * MIB
    more_tensors = camera_bytes(settings, MIB, 2 * MIB) - camera_bytes(settings, MIB, MIB)
    assert more_tensors == 3 * MIB
    assert camera_bytes(settings, 0, 0) < 4 * MIB


def test_a_frame_takes_several_times_its_largest_tensors():
    layouts = [(TensorSpec("0", (16, 32, 32)),), (TensorSpec("1", (32, 16, 16)), TensorSpec("2", (1, 2, 2)))]
    assert tail_bytes(layouts) == 4 * 16 * 32 * 32 * 4


def test_cameras_come_as_long_as_there_is_memory():
    settings = DetectorSettings.load({**SMALL, "max_memory": 100})
    budget = MemoryBudget(settings)
    budget.open(20 * MIB, 10 * MIB)  # and 8 MiB for profiles leave 52
    budget.reserve("door", 30 * MIB)
    with pytest.raises(SessionError, match=re.escape("30 MiB, 22 are free (--max-memory)")) as refusal:
        budget.reserve("porch", 30 * MIB)
    assert refusal.value.code == CloseCode.TOO_MANY_STREAMS
    budget.reserve("yard", 22 * MIB)
    budget.release("door")
    budget.release("porch")  # which was promised nothing
    assert budget.promised_bytes == 22 * MIB
    assert budget.take_released()
    assert not budget.take_released()
    budget.reserve("porch", 30 * MIB)


def test_says_what_takes_the_memory_where_it_is_too_little():
    settings = DetectorSettings.load({**SMALL, "max_memory": 64})
    with pytest.raises(SettingsError) as refusal:
        MemoryBudget(settings).open(50 * MIB, 3 * MIB)
    assert str(refusal.value).startswith(
        "--max-memory: 64 MiB is too little; it takes 50 MiB for the process"
    )
    for told in ("6 MiB for 2 frames at a time (--tails, --max-side)", "--max-profile-mib", "--window"):
        assert told in str(refusal.value)


def test_tls_takes_half_a_mebibyte_of_each_connection():
    plain = DetectorSettings.load({**SMALL, "max_subscribers": 80, "max_http": 20, "max_memory": 100})
    over_tls = plain.model_copy(update={"tls_cert": "cert.pem"})
    assert camera_bytes(over_tls, MIB, MIB) - camera_bytes(plain, MIB, MIB) == MIB // 2
    MemoryBudget(plain).open(50 * MIB, 10 * MIB)
    with pytest.raises(
        SettingsError,
        match=re.escape("50 MiB for TLS of others than cameras (--max-subscribers, --max-http)"),
    ):
        MemoryBudget(over_tls).open(50 * MIB, 10 * MIB)


def test_step_maps_take_one_more_frame_of_each_camera_and_a_pass_back():
    with_maps, without = (DetectorSettings.load({**SMALL, "feedback": every}) for every in (4, None))
    assert camera_bytes(with_maps, 0, MIB) - camera_bytes(without, 0, MIB) == MIB
    left = []
    for settings in (with_maps, without):
        budget = MemoryBudget(settings)
        budget.open(20 * MIB, 10 * MIB)
        with pytest.raises(SessionError, match="are free") as refusal:
            budget.reserve("door", 2**50)
        left.append(int(re.findall(r"(\d+) are free", refusal.value.reason)[0]))
    assert left[1] - left[0] == 6 * 10
