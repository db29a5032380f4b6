"""Which of our modules a wing may import, and which packages from outside: docs/architecture.md gives the reasons."""

from __future__ import annotations

import pytest

from tests.imports import Rule, Sources, faults, read_sources
from tests.paths import ROOT

CLOCK_AND_SOCKETS = {"asyncio", "socket", "time"}
TORCH = {"torch", "torchvision", "ultralytics"}

LIVE = {"aiohttp", "structlog", "numpy", "cv2", "pydantic", "prometheus_client"}
MEASURE = {
    "numpy",
    "scipy",
    "cv2",
    "PIL",
    "av",
    "pydantic",
    "pydantic_settings",
    "structlog",
    "rich",
    "tqdm",
    "matplotlib",
    "jinja2",
    "markupsafe",
    "faster_coco_eval",
}
OFFLINE = MEASURE | TORCH
MEASURED = {"codec", "stream/", "stream.network", "stream.network.engine", "stream.sources", "services/"}
STUDIED = MEASURED - {"stream.network.engine"} | {
    "stream.torch_network",
    "services.evaluation",
    "services.torch_devices",
    "services.torch_loading",
}

# A wing may import itself, the standard library but for `never`, and what its row names. "codec" names the whole
# package, "codec/" its leaves: the modules that lie in no wing. What stands in `reach` is refused however many of our
# modules lie between.
TABLE = {
    "codec/": Rule(ours={"codec/"}, others={"numpy", "numba"}),
    "codec.spec": Rule(ours={"codec"}, others={"numpy"}),
    "codec.__init__": Rule(ours={"codec"}),
    "codec.rle": Rule(ours={"codec/"}, others={"numpy", "numba"}),
    "codec.feature": Rule(ours={"codec/"}, others={"numpy", "numba"}),
    "stream/": Rule(
        ours={"stream/", "stream.session", "stream.network.names"},
        others={"numpy", "cv2"},
        reach=CLOCK_AND_SOCKETS | TORCH,
    ),
    "stream.__init__": Rule(ours={"codec", "stream"}),
    "stream.network": Rule(
        ours={"codec", "stream/"},
        others={
            "numpy",
            "ml_dtypes",
            "numba",
            "onnx",
            "onnxruntime",
            "google",
            "pydantic",
            "safetensors",
            "pooch",
            "tqdm",
        },
        reach={"asyncio", "aiohttp"} | TORCH,
    ),
    "stream.network.engine": Rule(  # torch's engine is imported only where it is chosen
        ours={"codec", "stream/", "stream.network", "stream.torch_network"},
        others={"numpy"},
        reach={"asyncio", "aiohttp"},
    ),
    "stream.torch_network": Rule(
        ours={"codec", "stream/", "stream.network"},
        others=TORCH | {"numpy", "safetensors"},
        reach={"asyncio", "aiohttp"},
    ),
    "stream.session": Rule(ours={"codec", "stream/"}, others={"pydantic"}, reach=CLOCK_AND_SOCKETS | TORCH),
    "stream.recording": Rule(ours={"codec", "stream/", "stream.session"}, reach=CLOCK_AND_SOCKETS | TORCH),
    "stream.rate": Rule(ours=set(), reach=CLOCK_AND_SOCKETS | TORCH),
    "stream.sources": Rule(
        ours={"codec.spec_text", "stream/", "stream.tasks"}, others={"av", "cv2", "numpy"}, reach=TORCH
    ),
    "stream.transport": Rule(ours={"stream/", "stream.session"}, others={"aiohttp"}, reach=TORCH),
    "stream.tasks": Rule(ours=set(), reach=TORCH),
    "services/": Rule(  # torch is asked for its devices only where it may be the engine
        ours={"codec", "stream", "services/", "services.access.tokens", "services.torch_devices"},
        others={
            "aiohttp",
            "structlog",
            "pydantic",
            "pydantic_settings",
            "pydantic_core",
            "prometheus_client",
        },
    ),
    "services.torch_devices": Rule(ours={"services/"}, others={"torch"}),
    "services.torch_loading": Rule(
        ours={"codec", "stream/", "stream.network", "stream.torch_network", "services/"},
        others={"torch", "structlog"},
    ),
    "services.cli": Rule(ours={"codec", "stream", "services"}),
    "services.__init__": Rule(ours=set()),
    "services.access": Rule(  # no loop and no server: decides, and reads a file
        ours={"stream/", "services/"},
        others={"pydantic"},
        never={"asyncio"},
    ),
    "services.recording": Rule(ours={"codec", "stream", "services/"}, others={"structlog"}),
    "services.camera": Rule(
        ours={"codec", "stream", "services/", "services.access", "services.recording"}, others=LIVE
    ),
    "services.detector": Rule(  # torch is loaded where step maps are asked for
        ours={"codec", "stream", "services/", "services.access", "services.torch_loading"}, others=LIVE
    ),
    "services.mqtt": Rule(  # neither service: what it publishes comes as texts
        ours={"stream/", "stream.tasks", "stream.transport.tls", "stream.session.messages", "services/"},
        others={"aiomqtt", "paho", "structlog", "pydantic", "pydantic_settings", "prometheus_client"},
    ),
    "services.ray_tail.settings": Rule(  # the one module that is there without Ray
        ours={"stream.session.messages", "services/"}, others={"pydantic"}
    ),
    "services.ray_tail": Rule(  # the detector does not know it: the program hands it over
        ours={"codec", "stream", "services/", "services.detector", "services.ray_tail.settings"},
        others={"ray", "structlog"},
    ),
    "services.doctor": Rule(
        ours={
            *("codec", "stream", "services/", "services.access", "services.camera", "services.detector"),
            *(
                "services.mqtt",
                "services.ray_tail.settings",
                "services.commands.camera_settings",
                "services.commands.detector_settings",
            ),
        },
        others=LIVE,
    ),
    "services.chaos": Rule(ours={"codec/", "stream/", "services/"}, others={"structlog", "pydantic"}),
    "services.evaluation": Rule(  # torch is loaded where step maps are asked for
        ours=MEASURED | {"services.torch_loading"},
        others=MEASURE | {"ultralytics"},
        never={"asyncio"},
    ),
    "services.calibration": Rule(
        ours=STUDIED,
        others=OFFLINE,
        never={"asyncio"},
    ),
    "services.study": Rule(
        ours=STUDIED,
        others=OFFLINE | {"lz4", "zstandard"},
        never={"asyncio"},
    ),
    "services.training": Rule(
        ours=STUDIED,
        others=OFFLINE,
        never={"asyncio"},
    ),
    "services.commands": Rule(ours={"codec", "stream", "services"}, others=LIVE | OFFLINE),
    "services.replay": Rule(
        ours={"codec", "stream", "services"}, others={"structlog", "pydantic", "pydantic_settings"}
    ),
    "services.bench": Rule(ours={"codec", "stream", "services"}, others=LIVE | OFFLINE),
}


@pytest.fixture(scope="module")
def sources() -> Sources:
    return read_sources(ROOT)


def test_finds_every_wing(sources):
    assert {"codec.layout", "stream.rate.control", "services.study.experiments.loss"} <= sources.keys()
    assert len(sources) > 150


def test_every_import_is_in_the_table(sources):
    assert faults(sources, TABLE) == []


# What is planted, where, and what the complaint has to say.
FAULTS = [
    ("stream.rate.control", "import asyncio", "stream.rate.control reaches asyncio"),
    ("stream.rate.control", "import time", "stream.rate.control reaches time"),
    (
        "stream.rate.link",
        "from stream.letterbox import Letterbox",
        "stream.rate.link imports stream.letterbox",
    ),
    ("stream.session.camera", "def f():\n    import socket", "stream.session.camera reaches socket"),
    ("stream.session.detector", "from asyncio import sleep", "stream.session.detector reaches asyncio"),
    ("codec.layout", "import socket", "stream.session.camera reaches socket by codec.layout"),
    ("codec.layout", "import scipy", "codec.layout imports scipy"),
    ("codec.packet", "from stream.frame import Frame", "codec.packet imports stream.frame"),
    (
        "codec.feature.motion",
        "from codec.rle import kernels",
        "codec.feature.motion imports codec.rle.kernels",
    ),
    ("codec.rle.kernels", "from codec.spec import parse_codec", "circle"),
    ("stream.latency", "import time", "stream.latency reaches time"),
    ("stream.network.graph", "import asyncio", "stream.network.graph reaches asyncio"),
    (
        "stream.network.graph",
        "from stream.tasks import worker",
        "stream.network.graph imports stream.tasks.worker",
    ),
    ("stream.sources.base", "import torch", "stream.sources.base imports torch"),
    ("stream.tasks.mailbox", "import torch", "stream.sources.live reaches torch by stream.tasks.mailbox"),
    ("stream.transport.websocket", "from stream.network import network", "imports stream.network.network"),
    ("services.detector.handshake", "from services import evaluation", "imports services.evaluation"),
    (
        "services.detector.handshake",
        "import services.evaluation.evaluate",
        "imports services.evaluation.evaluate",
    ),
    (
        "services.camera.service",
        "from services.detector.web import load_page",
        "imports services.detector.web",
    ),
    (
        "services.detector.web",
        "def f():\n    from services.camera import service",
        "imports services.camera.service",
    ),
    ("services.mqtt.outbox", "from services.detector.streams import Stream", "services.detector.streams"),
    ("services.detector.service", "from services.mqtt.outbox import Outbox", "imports services.mqtt.outbox"),
    (
        "services.detector.service",
        "from services.ray_tail.tails import RayTails",
        "imports services.ray_tail",
    ),
    ("services.ray_tail.tails", "from services.camera import service", "imports services.camera.service"),
    ("services.ray_tail.settings", "import ray", "services.ray_tail.settings imports ray"),
    ("services.chaos.tcp", "from services.camera import service", "imports services.camera.service"),
    ("services.chaos.service", "import aiohttp", "services.chaos.service imports aiohttp"),
    ("services.camera.service", "import matplotlib.pyplot", "services.camera.service imports matplotlib"),
    ("services.evaluation.curves", "import aiohttp", "services.evaluation.curves imports aiohttp"),
    ("services.evaluation.curves", "import asyncio", "services.evaluation.curves imports asyncio"),
    (
        "services.evaluation.curves",
        "from stream.transport import websocket",
        "imports stream.transport.websocket",
    ),
    (
        "services.study.study",
        "from services.detector import web",
        "services.study.study imports services.detector.web",
    ),
    (
        "services.settings",
        "from services.commands import watch",
        "services.settings imports services.commands.watch",
    ),
    ("services.commands.demo", "from services import cli", "circle"),
    (
        "services.logs",
        "import importlib\nimportlib.import_module('services.camera.service')",
        "services.camera.service",
    ),
    (
        "services.logs",
        "NAME = 'services.camera.service:Camera'",
        "services.logs imports services.camera.service",
    ),
    (
        "stream.rate.control",
        "import importlib\nimportlib.import_module('asyncio')",
        "stream.rate.control reaches asyncio",
    ),
    ("stream.session.camera", "__import__('socket')", "stream.session.camera reaches socket"),
    ("services.logs", "from . import memory", "services.logs: relative import"),
    (
        "services.logs",
        "from services.metrics import _SECONDS",
        "services.logs: private name services.metrics._SECONDS",
    ),
    ("stream.session.inner.deep", "", "stream.session.inner.deep: no wing has wings"),
    ("services.attic.box", "", "services.attic.box: no such wing"),
]


@pytest.mark.parametrize(("module", "planted", "complaint"), FAULTS, ids=[f"{m}: {p}" for m, p, _ in FAULTS])
def test_a_planted_fault_is_refused(module, planted, complaint, sources):
    planted_in_copy = {**sources, module: f"{sources.get(module, '')}\n{planted}\n"}
    complaints = set(faults(planted_in_copy, TABLE)) - set(faults(sources, TABLE))
    assert any(complaint in fault for fault in complaints), complaints
