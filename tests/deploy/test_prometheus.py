"""The dashboard and the alerts, by the metrics that exist and by a real Prometheus that watches real services."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from aiohttp import ClientError, ClientSession

from services.camera.metrics import CameraMetrics, serve_metrics
from services.detector.metrics import DetectorMetrics
from services.metrics import Metrics
from services.mqtt.metrics import MqttMetrics
from services.ray_tail.metrics import RayMetrics
from tests.paths import DEPLOY
from tests.ports import free_port
from tests.services.waiting import LIVENESS_S

CONFIG = DEPLOY / "prometheus" / "prometheus.yml"
RULES = DEPLOY / "prometheus" / "rules.yml"
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "dashboards" / "splitcast.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
VARIABLES: dict[str, dict[str, Any]] = {each["name"]: each for each in DASHBOARD["templating"]["list"]}

SCRAPE_S = 1

needs_prometheus = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")), reason="Prometheus is not installed"
)


class Query(NamedTuple):
    panel: str
    expression: str
    instant: bool


QUERIES = [
    Query(panel["title"], target["expr"], target.get("instant", False))
    for panel in PANELS
    for target in panel.get("targets", [])
]
PLAIN = [
    query
    for query in QUERIES
    if not any(word in query.expression for word in ("certificate", "_mqtt_", "_ray_"))
]  # what shows something without TLS, a broker and Ray


def exported(metrics: Metrics) -> Iterator[str]:
    """Names of all series a service can have."""
    suffixes = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"]}
    for family in metrics.registry.collect():
        for suffix in suffixes[family.type]:
            yield family.name + suffix


DETECTOR = DetectorMetrics()
MqttMetrics(DETECTOR)
RayMetrics(DETECTOR)
CAMERA = CameraMetrics()
MqttMetrics(CAMERA)
EXPORTED = {*exported(CAMERA), *exported(DETECTOR)}


# --- what is written ---


def named(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:splitcast|process)_\w+", re.sub(r'"[^"]*"', "", expression)))


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.panel)
def test_a_panel_asks_for_metrics_that_exist(query):
    assert named(query.expression)
    assert named(query.expression) <= EXPORTED


def test_alerts_and_variables_ask_for_metrics_that_exist():
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    assert set().union(*(named(rule["expr"]) for rule in rules)) <= EXPORTED
    for variable in VARIABLES.values():
        if variable["type"] == "query":
            assert named(variable["definition"]) <= EXPORTED
            assert variable["query"]["query"] == variable["definition"]


def test_every_metric_of_ours_is_shown():
    """A new metric gets a panel, or is named here with those that people look at directly."""
    asked = set().union(*(named(query.expression) for query in QUERIES))
    asked |= {name for variable in VARIABLES.values() for name in named(variable.get("definition", ""))}
    families = {re.sub("_(bucket|sum|count)$", "", name) for name in asked}
    ours = {re.sub("_(bucket|sum|count)$", "", name) for name in EXPORTED if name.startswith("splitcast_")}
    # The detector's own view of what the cameras' panels show.
    twice = (
        "raw_bytes",
        "encoded_bytes",
        "wire_sent_bytes",
        "wire_received_bytes",
        "keyframes",
        "detections",
    )
    assert ours - families == {f"splitcast_detector_{name}_total" for name in twice}


def test_the_dashboard_takes_its_sources_from_variables():
    assert VARIABLES["datasource"]["type"] == "datasource"
    for panel in PANELS:
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${datasource}"
            assert panel["targets"]
            assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])
    for query in QUERIES:
        used = set(re.findall(r"\$(\w+)", query.expression))
        assert used & {"camera", "detector"}, query
        assert used <= {"camera", "detector", "__rate_interval"}, query


def test_panels_lie_beside_each_other():
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    for panel in PANELS:
        place = panel["gridPos"]
        assert 0 <= place["x"] < place["x"] + place["w"] <= 24
    for one, other in itertools.combinations((panel["gridPos"] for panel in PANELS), 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart, (one, other)


@pytest.mark.parametrize(
    "panel", [panel for panel in PANELS if panel["type"] != "row"], ids=lambda panel: panel["title"]
)
def test_a_panel_explains_itself(panel):
    assert panel["title"]
    assert panel["description"].endswith(".")
    references = [target["refId"] for target in panel["targets"]]
    assert len(set(references)) == len(references)
    if panel["type"] in ("timeseries", "stat"):
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert all(target["legendFormat"] for target in panel["targets"])


# --- alerts ---

ON_CAMERA = {"job": "splitcast-camera", "instance": "door:8766", "severity": "warning"}
AT_DETECTOR = {"job": "splitcast-detector", "instance": "detector:8765", "severity": "warning"}
ON_STREAM = AT_DETECTOR | {"stream": "door"}
ON_DETECTOR = '{job="splitcast-detector",instance="detector:8765"'
STREAM_STATE = f'splitcast_detector_stream_state{ON_DETECTOR},stream="door"'

ALERTS = {
    "nothing is wrong": (
        {
            'up{job="splitcast-camera",instance="door:8766"}': "1x30",
            'splitcast_camera_connected{job="splitcast-camera",instance="door:8766",peer="source"}': "1x30",
            'splitcast_camera_frame_age_seconds{job="splitcast-camera",instance="door:8766"}': "0.1x30",
            'splitcast_camera_frames_dropped_total{job="splitcast-camera",instance="door:8766",'
            'stage="grab",reason="superseded"}': "0+10x30",
        },
        {},
    ),
    "a camera has not seen its first frame": (
        {
            'splitcast_camera_frame_age_seconds{job="splitcast-camera",instance="door:8766"}': " ".join(
                ["NaN"] * 30
            )
        },
        {},
    ),
    "a service is gone": (
        {'up{job="splitcast-detector",instance="detector:8765"}': "0x30"},
        {"SplitcastDown": {"job": "splitcast-detector", "instance": "detector:8765", "severity": "critical"}},
    ),
    "a detector is gone, which explains old frames": (
        {
            'splitcast_camera_connected{job="splitcast-camera",instance="door:8766",peer="detector"}': "0x30",
            'splitcast_camera_frame_age_seconds{job="splitcast-camera",instance="door:8766"}': "60+5x30",
        },
        {
            "SplitcastPeerLost": {
                "job": "splitcast-camera",
                "instance": "door:8766",
                "peer": "detector",
                "severity": "warning",
            }
        },
    ),
    "frames are old though both peers are there": (
        {
            'splitcast_camera_connected{job="splitcast-camera",instance="door:8766",peer="detector"}': "1x30",
            'splitcast_camera_frame_age_seconds{job="splitcast-camera",instance="door:8766"}': "60+5x30",
        },
        {
            "SplitcastCameraStalled": {
                "job": "splitcast-camera",
                "instance": "door:8766",
                "severity": "warning",
            }
        },
    ),
    "the tail fails on frames": (
        {
            'splitcast_camera_frames_dropped_total{job="splitcast-camera",instance="door:8766",'
            'stage="detector",reason="error"}': "0x10 1x20",
        },
        {
            "SplitcastFramesFail": {
                "job": "splitcast-camera",
                "instance": "door:8766",
                "stage": "detector",
                "reason": "error",
                "severity": "warning",
            }
        },
    ),
    "a camera is lost": (
        {f'{STREAM_STATE},state="lost"}}': "0x6 1x24", f'{STREAM_STATE},state="connected"}}': "1x6 0x24"},
        {"SplitcastStreamSilent": ON_STREAM},
    ),
    "a camera comes and goes, and never stays": (
        {f'{STREAM_STATE},state="lost"}}': "0 1 0 1 0 1" + " 0 1" * 12},
        {},
    ),
    "a camera waits for its source, then is silent": (
        {f'{STREAM_STATE},state="waiting"}}': "1x12 0x18", f'{STREAM_STATE},state="stalled"}}': "0x12 1x18"},
        {"SplitcastStreamSilent": ON_STREAM},
    ),
    "a camera was stopped": ({f'{STREAM_STATE},state="ended"}}': "1x30"}, {}),
    "a picture stands still": (
        {f'{STREAM_STATE},state="frozen"}}': "1x30"},
        {"SplitcastStreamFrozen": ON_STREAM},
    ),
    "most frames are stale": (
        {
            f'splitcast_detector_stream_frames_total{ON_DETECTOR},stream="door"}}': "0+10x30",
            f'splitcast_detector_stream_rejected_total{ON_DETECTOR},stream="door",reason="stale"}}': "0+20x30",
            f'splitcast_detector_stream_rejected_total{ON_DETECTOR},stream="door",reason="corrupt"}}': "0+10x30",
        },
        {"SplitcastGaps": ON_STREAM},
    ),
    "some frames are stale": (
        {
            f'splitcast_detector_stream_frames_total{ON_DETECTOR},stream="door"}}': "0+10x30",
            f'splitcast_detector_stream_rejected_total{ON_DETECTOR},stream="door",reason="stale"}}': "0+9x30",
        },
        {},
    ),
    "video comes damaged": (
        {'splitcast_camera_decode_errors_total{job="splitcast-camera",instance="door:8766"}': "0+2x30"},
        {"SplitcastSourceDamaged": ON_CAMERA},
    ),
    "a camera loses its detector again and again": (
        {
            'splitcast_camera_reconnects_total{job="splitcast-camera",instance="door:8766",'
            'peer="detector",reason="lost"}': "0+1x30"
        },
        {"SplitcastReconnectLoop": ON_CAMERA | {"peer": "detector"}},
    ),
    "four cameras come back, each once or twice": (
        {
            f"splitcast_detector_streams{ON_DETECTOR}}}": "4x30",
            f'splitcast_detector_reconnects_total{ON_DETECTOR},peer="camera",reason="lost"}}': "0+1x30",
        },
        {},
    ),
    "a camera comes back again and again": (
        {
            f"splitcast_detector_streams{ON_DETECTOR}}}": "1x30",
            f'splitcast_detector_reconnects_total{ON_DETECTOR},peer="camera",reason="lost"}}': "0+1x30",
        },
        {"SplitcastReconnectLoop": AT_DETECTOR | {"peer": "camera"}},
    ),
    "a second camera wants a name": (
        {f'splitcast_detector_connections_refused_total{ON_DETECTOR},reason="stream_taken"}}': "0+1x30"},
        {"SplitcastConnectionsRefused": AT_DETECTOR | {"reason": "stream_taken"}},
    ),
    "cameras wait for a detector that loads": (
        {f'splitcast_detector_connections_refused_total{ON_DETECTOR},reason="not_ready"}}': "0+5x30"},
        {},
    ),
    "the machine is too busy": (
        {
            f'splitcast_detector_event_loop_delay_seconds_bucket{ON_DETECTOR},le="0.25"}}': "0+90x30",
            f'splitcast_detector_event_loop_delay_seconds_bucket{ON_DETECTOR},le="0.5"}}': "0+100x30",
            f'splitcast_detector_event_loop_delay_seconds_bucket{ON_DETECTOR},le="+Inf"}}': "0+100x30",
        },
        {"SplitcastEventLoopLate": AT_DETECTOR},
    ),
    "a certificate is good for a week": (
        {
            f"splitcast_detector_certificate_expires_timestamp_seconds{ON_DETECTOR}}}": "604920x30",
            'splitcast_camera_certificate_expires_timestamp_seconds{job="splitcast-camera",instance="door:8766"}': (
                "1296000x30"
            ),
        },
        {"SplitcastCertificateEnds": AT_DETECTOR},
    ),
    "a camera's certificate is over": (
        {
            "splitcast_camera_certificate_expires_timestamp_seconds"
            '{job="splitcast-camera",instance="door:8766"}': "60x30"
        },
        {"SplitcastCertificateEnds": ON_CAMERA},
    ),
    "a service shows no certificate": (
        {
            f"splitcast_detector_certificate_expires_timestamp_seconds{ON_DETECTOR}}}": " ".join(
                ["NaN"] * 30
            ),
        },
        {},
    ),
    "an MQTT broker is away": (
        {f"splitcast_detector_mqtt_connected{ON_DETECTOR}}}": "0x30"},
        {"SplitcastMqttDisconnected": AT_DETECTOR},
    ),
    "an MQTT broker is started anew": (
        {f"splitcast_detector_mqtt_connected{ON_DETECTOR}}}": "0x1 1x30"},
        {},
    ),
    "a password is wrong": (
        {
            'splitcast_camera_retry_at_timestamp_seconds{job="splitcast-camera",instance="door:8766",'
            'peer="source"}': "150x30"
        },
        {"SplitcastRetryFar": ON_CAMERA | {"peer": "source"}},
    ),
    "a source is tried every few seconds": (
        {
            'splitcast_camera_retry_at_timestamp_seconds{job="splitcast-camera",instance="door:8766",'
            'peer="source"}': "5+5x30"
        },
        {},
    ),
}

UP = 'up{job="splitcast-camera",instance="door:8766"}'
FAULTS = (
    'splitcast_camera_frames_dropped_total{job="splitcast-camera",instance="door:8766",'
    'stage="detector",reason="error"}'
)
AFTER_A_WHILE = {  # of 7 minutes: what a camera does not tell that tells a reason from the first time on alone
    "a camera has its first fault": (
        {UP: "1x90", FAULTS: "_x80 1x10"},
        {"SplitcastFramesFail": ON_CAMERA | {"stage": "detector", "reason": "error"}},
    ),
    "a camera that had a fault is scraped for the first time": ({UP: "_x80 1x10", FAULTS: "_x80 1x10"}, {}),
    "a camera had a fault long ago": ({UP: "1x90", FAULTS: "_x10 1x80"}, {}),
}


def promtool(*arguments: str | Path) -> None:
    done = subprocess.run(
        ["promtool", *arguments], capture_output=True, text=True, timeout=LIVENESS_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_prometheus
def test_promtool_accepts_the_configuration():
    promtool("check", "config", CONFIG)  # and the rules it names


@needs_prometheus
@pytest.mark.parametrize("case", [*ALERTS, *AFTER_A_WHILE])
def test_an_alert_fires_when_it_should_and_no_other(case, tmp_path):
    series, firing = (ALERTS | AFTER_A_WHILE)[case]
    names = list(ANNOTATIONS)
    assert names == [rule["alert"] for rule in yaml.safe_load(RULES.read_text())["groups"][0]["rules"]]
    assert set(firing) <= set(names)
    test = {
        "interval": "5s",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [
            {
                "eval_time": "7m" if case in AFTER_A_WHILE else "2m",
                "alertname": name,
                "exp_alerts": [
                    {"exp_labels": firing[name], "exp_annotations": annotations(name, firing[name])}
                ]
                if name in firing
                else [],
            }
            for name in names
        ],
    }
    document = {"rule_files": [str(RULES)], "evaluation_interval": "5s", "tests": [test]}
    path = tmp_path / "test.yml"
    path.write_text(yaml.safe_dump(document))
    promtool("test", "rules", path)


def annotations(name: str, labels: dict[str, str]) -> dict[str, str]:
    """What the alert says for these labels."""
    return {key: text.format_map(labels) for key, text in ANNOTATIONS[name].items()}


ANNOTATIONS = {
    "SplitcastDown": {
        "summary": "detector:8765 does not answer",
        "description": "The service has stopped, or Prometheus cannot reach its /metrics.",
    },
    "SplitcastPeerLost": {
        "summary": "door:8766 has no detector",
        "description": "The camera tries again for ever; its log tells the reason.",
    },
    "SplitcastCameraStalled": {
        "summary": "door:8766 has had no frame detected for 3m 0s",
        "description": "Source and detector are connected, and yet nothing comes back.",
    },
    "SplitcastFramesFail": {
        "summary": "door:8766 loses frames: detector/error",
        "description": "Neither load nor a lost connection explains these; the log of the end named by the stage does.",
    },
    "SplitcastStreamSilent": {
        "summary": "door sends no frames to detector:8765",
        "description": "Its camera is gone, silent, or waits for its source; the detector's live page tells which, and "
        "why.",
    },
    "SplitcastStreamFrozen": {
        "summary": "The picture of door stands still",
        "description": "Frames come, all of the same picture; the device behind the camera may have to be restarted.",
    },
    "SplitcastGaps": {
        "summary": "detector:8765 gives no detections for 75% of the packets of door",
        "description": "If the reason is stale the detector has more streams than it can serve; else packets are "
        "damaged.",
    },
    "SplitcastSourceDamaged": {
        "summary": "door:8766 receives damaged video",
        "description": "The network between the source and the camera loses packets, or the source is broken.",
    },
    "SplitcastReconnectLoop": {
        "summary": "{instance} loses its {peer} again and again",
        "description": "The metric's label reason tells how the connections end.",
    },
    "SplitcastConnectionsRefused": {
        "summary": "detector:8765 refuses connections: stream_taken",
        "description": "A camera or consumer that is set up wrongly, one too many, or a stranger; the log names the "
        "peer.",
    },
    "SplitcastEventLoopLate": {
        "summary": "detector:8765 is too busy to keep its connections",
        "description": "The event loop runs late by more than a quarter of a second; the machine has too few cores for "
        "its load.",
    },
    "SplitcastCertificateEnds": {
        "summary": "The certificate of {instance} ends within two weeks, or has ended",
        "description": "Renew it in place, a new file counts within ten seconds; who connects after its end refuses "
        "it.",
    },
    "SplitcastMqttDisconnected": {
        "summary": "detector:8765 has no MQTT broker",
        "description": "It tries again for ever, and keeps the newest messages; its log tells the reason and what to "
        "do.",
    },
    "SplitcastRetryFar": {
        "summary": "door:8766 tries its source only once a minute",
        "description": "So rarely it asks a peer alone that answered 401 or 403, as the password is wrong or locked.",
    },
}


# --- a real Prometheus ---


class Server:
    """A Prometheus that runs, asked over its HTTP API."""

    def __init__(self, url: str, session: ClientSession, scrape_s: int = SCRAPE_S) -> None:
        self._url, self._session, self._scrape_s = url, session, scrape_s

    async def get(self, path: str, **parameters: str) -> Any:
        async with self._session.get(f"{self._url}/api/v1/{path}", params=parameters) as answer:
            document = await answer.json()
        assert document["status"] == "success", (parameters, document)
        return document["data"]

    async def instances(self, variable: str) -> list[str]:
        """Values of a dashboard variable, as its definition asks for them."""
        metric, label = re.fullmatch(
            r"label_values\((\w+), (\w+)\)", VARIABLES[variable]["definition"]
        ).groups()
        return await self.get(f"label/{label}/values", **{"match[]": metric})

    async def has_data(self, query: Query, variables: dict[str, list[str]]) -> bool:
        """Whether a query finds one finite value at least."""
        expression = substituted(query.expression, variables, self._scrape_s)
        if query.instant:
            found = (await self.get("query", query=expression))["result"]
            values = [series["value"] for series in found]
        else:
            now = (await self.get("query", query="time()"))["result"][0]
            window = {"start": str(now - 5 * self._scrape_s), "end": str(now), "step": str(self._scrape_s)}
            found = (await self.get("query_range", query=expression, **window))["result"]
            values = [value for series in found for value in series["values"]]
        return any(math.isfinite(float(value)) for _, value in values)


@asynccontextmanager
async def prometheus(folder: Path, targets: dict[str, str]) -> AsyncIterator[Server]:
    """The repository's configuration with other targets and a shorter interval, in a server of its own."""
    config = yaml.safe_load(CONFIG.read_text())
    interval = f"{SCRAPE_S}s"
    config["global"] = dict.fromkeys(config["global"], interval)
    config["rule_files"] = [str(CONFIG.parent / name) for name in config["rule_files"]]
    for job in config["scrape_configs"]:
        job["static_configs"] = [{"targets": [targets[job["job_name"]]]}]
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    port = free_port()
    flags = {
        "config.file": path,
        "storage.tsdb.path": folder / "data",
        "web.listen-address": f"127.0.0.1:{port}",
    }
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            "prometheus", *(f"--{name}={value}" for name, value in flags.items()), stdout=log, stderr=log
        )
    try:
        async with ClientSession() as session:
            async with asyncio.timeout(LIVENESS_S):
                while not await is_ready(session, f"http://127.0.0.1:{port}/-/ready"):
                    assert process.returncode is None, (folder / "log").read_text()
                    await asyncio.sleep(0.1)
            yield Server(f"http://127.0.0.1:{port}", session)
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.wait(), LIVENESS_S)


async def is_ready(session: ClientSession, url: str) -> bool:
    try:
        async with session.get(url) as answer:
            return answer.status == 200
    except ClientError:
        return False


def substituted(expression: str, variables: dict[str, list[str]], scrape_s: int) -> str:
    """The expression as Grafana sends it when all values of the variables are chosen."""
    rate_interval = f"{4 * scrape_s}s"  # four scrapes, where a step is shorter than that
    for name, values in {"__rate_interval": [rate_interval], **variables}.items():
        text = values[0] if name == "__rate_interval" else chosen(values)
        expression = re.sub(rf"\${name}\b", lambda _, text=text: text, expression)
    assert "$" not in expression
    return expression


def chosen(values: list[str]) -> str:
    """Several values as Grafana writes them into a PromQL string: an alternative of escaped texts."""
    escaped = [re.sub(r"[\\^$*+?.()|\[\]{}]", r"\\\\\g<0>", value) for value in values]
    return escaped[0] if len(escaped) == 1 else f"({'|'.join(escaped)})"


@needs_prometheus
@pytest.mark.slow
async def test_every_panel_shows_a_running_stream(start_detector, make_camera, tmp_path):
    async with start_detector() as running:
        rate = {"codec": "feature:profile=none", "target_kbps": 500, "max_latency_ms": 5000}
        camera = make_camera(
            running.url, metrics="full", metrics_port=free_port(), realtime=True, loop=True, **rate
        )
        targets = {
            "splitcast-detector": f"127.0.0.1:{running.port}",
            "splitcast-camera": f"127.0.0.1:{camera.config.metrics_port}",
        }
        async with (
            serve_metrics(camera.statistics.metrics, camera.config),
            prometheus(tmp_path, targets) as server,
        ):
            streaming = asyncio.ensure_future(camera.run())
            empty = set(PLAIN)
            instances: dict[str, list[str]] = {}
            rules: list[dict[str, Any]] = []
            try:
                async with asyncio.timeout(LIVENESS_S):
                    while empty or not rules or any(rule["health"] == "unknown" for rule in rules):
                        assert not streaming.done(), streaming
                        await asyncio.sleep(SCRAPE_S)
                        instances = {name: await server.instances(name) for name in ("detector", "camera")}
                        if all(instances.values()):
                            for query in list(empty):
                                if await server.has_data(query, instances):
                                    empty.discard(query)
                        rules = [r for group in (await server.get("rules"))["groups"] for r in group["rules"]]
            except TimeoutError:
                pass
            finally:
                camera.stop()
                await asyncio.wait_for(streaming, LIVENESS_S)
            assert not empty
            assert instances["detector"] == [targets["splitcast-detector"]]
            assert instances["camera"] == [targets["splitcast-camera"]]
            assert {rule["health"] for rule in rules} == {"ok"}
            alerts = [alert for rule in rules for alert in rule["alerts"]]
            assert not [alert for alert in alerts if alert["state"] == "firing"]
