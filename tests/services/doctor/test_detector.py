"""What is looked at on a detector's machine."""

from __future__ import annotations

import asyncio

from codec.layout import TensorSpec
from services.doctor.detector import DetectorDoctor
from services.doctor.settings import DoctorDetectorSettings
from tests.certificates import HOST, Authority
from tests.ports import free_port
from tests.services.calibrated import make_profile
from tests.services.waiting import LIVENESS_S


async def test_all_that_the_settings_name_is_looked_at(tmp_path):
    profile = make_profile((TensorSpec("x", (2, 8, 8)),))
    (tmp_path / "own.profile").write_bytes(profile.pack())
    settings = DoctorDetectorSettings.load(
        {
            "model": "yolov5n",
            "host": HOST,
            "profile": str(tmp_path / "own.profile"),
            "tls_cert": str(Authority(tmp_path).sign()),
            "mqtt": f"mqtt://{HOST}:{free_port()}",
        }
    )
    checks = {check.name: check for check in DetectorDoctor(settings).checks}
    assert list(checks) == [
        *("limits", "memory", "port", "tokens", "profile", "certificate", "broker", "cache", "kernels"),
        *("weights", "engine"),
    ]
    async with asyncio.timeout(LIVENESS_S):
        found = {name: await checks[name].look() for name in ("profile", "certificate", "broker")}
    assert found["profile"].facts == {"hash": profile.hash}
    assert found["certificate"].facts["matches"] == [HOST]
    assert found["broker"].facts["host"] == HOST
