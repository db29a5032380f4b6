"""What is looked at on a machine that is to be a detector, in the order in which one check needs another."""

from __future__ import annotations

from collections.abc import Sequence

from services.detector.admission import wanted_connections
from services.doctor.broker import look_at_broker
from services.doctor.certificate import look_at_own_certificate
from services.doctor.detector_engine import judge_detector_engine, measure_detector
from services.doctor.examination import Check, in_thread
from services.doctor.finding import Finding, fine, unchecked
from services.doctor.folders import look_at_kernels, look_at_weights_cache
from services.doctor.limits import look_at_limit
from services.doctor.memory import look_at_memory
from services.doctor.ports import look_at_port
from services.doctor.settings import DoctorDetectorSettings
from services.doctor.token import look_at_tokens
from services.doctor.weights import DETECTOR_HALF, is_named, look_at_weights
from services.loading import LoadedModel
from services.profiles import read_profile
from stream.network.download import weights_path

SOON_S = 10.0  # for what takes no time, unless a disk or a name server hangs
LOAD_S = 120.0  # for what loads libraries, on a slow machine
COMPILE_S = 300.0  # and compiles kernels


class DetectorDoctor:
    """The checks, and the network that one of them has found."""

    def __init__(self, settings: DoctorDetectorSettings) -> None:
        self._settings = settings
        self._network: LoadedModel | None = None

    @property
    def checks(self) -> Sequence[Check]:
        """In order."""
        settings = self._settings
        return [
            Check("limits", SOON_S, self._limits),
            Check("memory", SOON_S, lambda: in_thread(look_at_memory, settings.max_memory)),
            Check("port", SOON_S, self._port),
            Check("tokens", SOON_S, lambda: in_thread(look_at_tokens, settings)),
            *([Check("profile", LOAD_S, self._profile)] if settings.profile else []),
            *([Check("certificate", SOON_S, self._certificate)] if settings.tls else []),
            *([Check("broker", 2 * SOON_S, lambda: look_at_broker(settings))] if settings.mqtt else []),
            *([Check("cache", LOAD_S, self._cache)] if is_named(settings.model) else []),
            Check("kernels", LOAD_S, lambda: in_thread(look_at_kernels)),
            Check("weights", LOAD_S, self._weights),
            Check("engine", COMPILE_S, self._engine),
        ]

    def close(self) -> None:
        """Nothing is held."""

    async def _limits(self) -> Finding:
        lower = ", or lower --max-streams, --max-subscribers or --max-http"
        return look_at_limit(wanted_connections(self._settings), lower)

    async def _port(self) -> Finding:
        return await in_thread(look_at_port, self._settings.host, self._settings.port, "detector")

    async def _certificate(self) -> Finding:
        assert self._settings.tls
        return await in_thread(look_at_own_certificate, self._settings.tls, self._settings.host)

    async def _profile(self) -> Finding:
        assert self._settings.profile
        profile = await in_thread(read_profile, self._settings.profile)
        return fine(f"{self._settings.profile}: profile {profile.hash[:12]}", hash=profile.hash)

    async def _cache(self) -> Finding:
        return await in_thread(
            lambda: look_at_weights_cache(weights_path(self._settings.model, self._settings.cache))
        )

    async def _weights(self) -> Finding:
        finding, self._network = await in_thread(look_at_weights, self._settings, DETECTOR_HALF)
        return finding

    async def _engine(self) -> Finding:
        if self._network is None:
            return unchecked("there is no network to run: see weights")
        cost = await in_thread(measure_detector, self._settings, self._network)
        return judge_detector_engine(cost, self._settings, self._network.model.device, self._settings.fps)
