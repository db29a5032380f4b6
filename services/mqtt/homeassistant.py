"""What Home Assistant needs to show a stream without being configured: MQTT discovery, an entity a topic.

https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery and, for the keys, /integrations/sensor.mqtt/. One
message an entity is understood since 2023; the newer one for a whole device is not.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from services.metrics import VERSION
from services.mqtt.topics import Topics

STATES = ("waiting", "connected", "stalled", "frozen", "lost", "ended")
GONE = ("lost", "ended")


def discovery(topics: Topics, prefix: str, stream: str) -> dict[str, str]:
    """Topics and payloads that make a stream known to the Home Assistant that listens below `prefix`."""
    device = f"{_word(topics.prefix)}_{_word(stream)}"
    return {
        f"{prefix}/sensor/{device}_{entity}/config": json.dumps(
            {
                **keys,
                "unique_id": f"{device}_{entity}",
                "device": {
                    "identifiers": [device],
                    "name": stream,
                    "manufacturer": "Splitcast",
                    "model": "video stream",
                    "sw_version": VERSION,
                },
                "origin": {"name": "Splitcast", "sw_version": VERSION},
            },
            separators=(",", ":"),
        )
        for entity, keys in _entities(topics, stream).items()
    }


def _entities(topics: Topics, stream: str) -> dict[str, dict[str, Any]]:
    there = {"topic": topics.available}
    # A stream that is lost or has ended shows nobody any more; what it is now can be seen all the same.
    streaming = {
        "topic": topics.of(stream, "state"),
        "value_template": f"{{{{ 'offline' if value_json.state in {GONE} else 'online' }}}}",
    }

    def count(name: str, field: str, icon: str) -> dict[str, Any]:
        return {
            "name": name,
            "state_topic": topics.of(stream, "counts"),
            "value_template": f"{{{{ value_json.{field} }}}}",
            "state_class": "measurement",
            "icon": icon,
            "availability": [there, streaming],
            "availability_mode": "all",
        }

    return {
        "person": count("People", "person", "mdi:account"),
        "vehicle": count("Vehicles", "vehicle", "mdi:car"),
        "state": {
            "name": "State",
            "state_topic": topics.of(stream, "state"),
            "value_template": "{{ value_json.state }}",
            "json_attributes_topic": topics.of(stream, "state"),
            "device_class": "enum",
            "options": list(STATES),
            "icon": "mdi:cctv",
            "entity_category": "diagnostic",
            "availability": [there],
        },
    }


def _word(name: str) -> str:
    """A name in the characters that such a topic may have. Two names never become one."""
    word = re.sub(r"[^A-Za-z0-9-]", "_", name)
    return word if word == name else f"{word}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"
