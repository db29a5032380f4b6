"""Discovery as Home Assistant documents it: the topic, the keys, and templates that give what they should."""

from __future__ import annotations

import json
import re

import pytest
from jinja2 import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from services.mqtt.counts import counts_text
from services.mqtt.homeassistant import GONE, STATES, discovery
from services.mqtt.topics import Topics, with_fields
from tests.services.mqtt.publishing import stream_text

TOPICS = Topics("cams", "attic")

# https://www.home-assistant.io/integrations/mqtt/#discovery-topic
TOPIC = re.compile(r"homeassistant/sensor/([A-Za-z0-9_-]+)/config")
# https://www.home-assistant.io/integrations/sensor.mqtt/#configuration-variables
SENSOR_KEYS = {
    "availability",
    "availability_mode",
    "availability_template",
    "availability_topic",
    "default_entity_id",
    "device",
    "device_class",
    "enabled_by_default",
    "encoding",
    "entity_category",
    "entity_picture",
    "expire_after",
    "force_update",
    "group",
    "icon",
    "json_attributes_template",
    "json_attributes_topic",
    "last_reset_value_template",
    "name",
    "options",
    "origin",
    "payload_available",
    "payload_not_available",
    "platform",
    "qos",
    "state_class",
    "state_topic",
    "suggested_display_precision",
    "unique_id",
    "unit_of_measurement",
    "value_template",
}
AVAILABILITY_KEYS = {"topic", "payload_available", "payload_not_available", "value_template"}
DEVICE_KEYS = {
    "configuration_url",
    "connections",
    "hw_version",
    "identifiers",
    "manufacturer",
    "model",
    "model_id",
    "name",
    "serial_number",
    "suggested_area",
    "sw_version",
    "via_device",
}
ORIGIN_KEYS = {"name", "sw_version", "support_url"}


def entities(stream: str = "door") -> dict[str, dict]:
    """What is told of a stream, by the entity's name."""
    configs = [json.loads(payload) for payload in discovery(TOPICS, "homeassistant", stream).values()]
    return {config["name"]: config for config in configs}


def rendered(template: str, text: str) -> str:
    """As Home Assistant renders the template of a message in JSON."""
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined)
    return environment.from_string(template).render(value=text, value_json=json.loads(text))


def is_available(config: dict, kept: dict[str, str]) -> bool:
    """As Home Assistant decides it with `availability_mode`, whose default is the last topic that was heard."""
    assert len(config["availability"]) == 1 or config["availability_mode"] == "all"
    heard = []
    for source in config["availability"]:
        text = kept[source["topic"]]
        heard.append(rendered(source["value_template"], text) if "value_template" in source else text)
    assert set(heard) <= {"online", "offline"}
    return all(text == "online" for text in heard)


def test_every_key_is_documented():
    for topic, payload in discovery(TOPICS, "homeassistant", "door").items():
        config = json.loads(payload)
        assert TOPIC.fullmatch(topic)[1] == config["unique_id"]
        assert config.keys() <= SENSOR_KEYS
        assert config["device"].keys() <= DEVICE_KEYS
        assert config["origin"].keys() <= ORIGIN_KEYS
        assert config["origin"]["name"]
        assert config["device"]["identifiers"]
        assert all(source.keys() <= AVAILABILITY_KEYS for source in config["availability"])
        assert config["state_topic"].startswith("cams/door/")
        # With options a sensor is an enumeration, and then it measures nothing.
        assert ("options" in config) == (config.get("device_class") == "enum")
        assert not ("options" in config and "state_class" in config)


def test_a_stream_is_a_device_of_three_entities():
    assert list(entities()) == ["People", "Vehicles", "State"]
    assert len({config["unique_id"] for config in entities().values()}) == 3
    assert {json.dumps(config["device"]["identifiers"]) for config in entities().values()} == {
        '["cams_door"]'
    }


def test_what_the_entities_show():
    counts = counts_text("door", {"person": 2, "car": 1, "bus": 1}, 1.0)
    assert rendered(entities()["People"]["value_template"], counts) == "2"
    assert rendered(entities()["Vehicles"]["value_template"], counts) == "2"
    for state in STATES:
        assert rendered(entities()["State"]["value_template"], stream_text("door", state)) == state
    assert entities()["State"]["options"] == list(STATES)


def test_counts_that_are_not_known_are_unknown():
    # Home Assistant's word for it, of a sensor that measures.
    assert rendered(entities()["People"]["value_template"], counts_text("door", None, 1.0)) == "None"


@pytest.mark.parametrize("available", ["online", "offline"])
@pytest.mark.parametrize("state", STATES)
def test_when_an_entity_is_available(available, state):
    text = with_fields(stream_text("door", state), publisher="attic")
    kept = {"cams/attic/available": available, "cams/door/state": text}
    assert is_available(entities()["State"], kept) == (available == "online")
    for name in ("People", "Vehicles"):
        assert is_available(entities()[name], kept) == (available == "online" and state not in GONE)


def test_streams_of_any_name_are_told_apart():
    names = ["a.b", "a_b", "a-b", "a..b", "A.b", "a.b_state", "x" * 64]
    topics = [topic for name in names for topic in discovery(TOPICS, "homeassistant", name)]
    assert len(set(topics)) == 3 * len(names)
    assert all(TOPIC.fullmatch(topic) for topic in topics)


def test_publishers_with_other_prefixes_are_told_apart():
    one, other = (discovery(Topics(prefix, "attic"), "ha", "door") for prefix in ("a/b", "a_b"))
    assert not one.keys() & other.keys()
    assert all(topic.startswith("ha/sensor/") for topic in one)
