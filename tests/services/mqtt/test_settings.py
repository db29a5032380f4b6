"""Addresses of brokers, passwords and certificates: what is taken, and what is said of the rest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.commands.detector_settings import DetectorProgramSettings
from services.commands.settings import WatchSettings
from services.errors import SettingsError
from services.mqtt.broker import Broker, BrokerAddress
from services.mqtt.settings import MqttSettings
from stream.redact import redact_url
from tests.certificates import Authority

SECRET = "hunter2hunter2"


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("mqtt://nas", BrokerAddress("nas", 1883, tls=False)),
        ("mqtts://nas", BrokerAddress("nas", 8883, tls=True)),
        ("mqtts://nas:1", BrokerAddress("nas", 1, tls=True)),
        ("mqtt://door@[::1]:1884/", BrokerAddress("::1", 1884, tls=False, user="door")),
        ("mqtt://a%40b:p%2Fw@nas", BrokerAddress("nas", 1883, tls=False, user="a@b", password="p/w")),
    ],
)
def test_an_address(url, address):
    assert BrokerAddress.parse(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "nas",
        "nas:1883",
        "http://nas",
        f"mqtt://door:{SECRET}@",
        f"mqtt://door:{SECRET}@nas:0",
        f"mqtt://door:{SECRET}@nas:99999",
        f"mqtt://door:{SECRET}@nas:x",
        f"mqtt://door:{SECRET}@[::1",
        f"mqtt://door:{SECRET}/x@nas",
        f"mqtt://door:{SECRET}#x@nas",
        f"mqtt://door:{SECRET}@nas/topic",
        f"mqtt://door:{SECRET}%00@nas",
        f"mqtt://door%0a:{SECRET}@nas",
    ],
)
def test_what_is_no_address_is_told_without_its_password(url):
    with pytest.raises(SettingsError) as told:
        MqttSettings.load({"mqtt": url})
    assert str(told.value).startswith("--mqtt: ")
    assert SECRET not in str(told.value)
    assert redact_url(str(told.value)) == str(told.value)  # what is to be written is shown as it is


def test_an_address_never_shows_its_password():
    settings = MqttSettings.load({"mqtt": f"mqtt://door:{SECRET}@nas"})
    shown = [repr(settings), str(settings), repr(settings.mqtt_broker), str(settings.mqtt_broker.address)]
    assert not [text for text in shown if SECRET in text]
    assert settings.mqtt_broker.password() == SECRET


def test_a_password_comes_from_a_variable(monkeypatch):
    monkeypatch.setenv("SPLITCAST_MQTT_PASSWORD", SECRET)
    for settings in (
        MqttSettings.load({"mqtt": "mqtt://door@nas"}).mqtt_broker,
        WatchSettings.load({"url": ("mqtt://door@nas",)}).mqtt_broker,
        DetectorProgramSettings.load({"mqtt": "mqtt://door@nas"}).mqtt_broker,
    ):
        assert settings.password() == SECRET
        assert SECRET not in repr(settings)


def test_a_password_comes_from_a_file_as_it_is_now(tmp_path):
    file = tmp_path / "password"
    broker = MqttSettings.load({"mqtt": "mqtt://door@nas", "mqtt_password_file": str(file)}).mqtt_broker
    for password in ("first", " sécond # "):
        file.write_text(f"{password}\n")
        assert broker.password() == password


@pytest.mark.parametrize("content", [b"", b"\n", b"two\nlines\n", b"\xff\xfe", b"a\x00b", None])
def test_a_file_that_holds_no_password(content, tmp_path):
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError, match=r"--mqtt-password-file: .*password"):
        Broker(BrokerAddress("nas", 1883, tls=False, user="door"), password_file=file).password()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"mqtt": "mqtt://nas", "mqtt_password": SECRET}, "--mqtt: there is a password, and no user"),
        ({"mqtt": "mqtt://d:x@nas", "mqtt_password": SECRET}, "--mqtt: there is a password in the address"),
        ({"mqtt": "mqtt://nas", "mqtt_ca": "ca.pem"}, "--mqtt-ca: is of no use without TLS"),
        ({"mqtt": "mqtt://nas", "mqtt_cert": "c.pem"}, "--mqtt-cert: is of no use without TLS"),
        ({"mqtt": "mqtts://nas", "mqtt_key": "k.pem"}, "--mqtt-key: is of no use without --mqtt-cert"),
        ({"mqtt_prefix": "a/#"}, "--mqtt-prefix: "),
        ({"mqtt_prefix": "$SYS"}, "--mqtt-prefix: "),
        ({"mqtt_prefix": "/a"}, "--mqtt-prefix: "),
        ({"mqtt_discovery": "home assistant"}, "--mqtt-discovery: "),
        ({"mqtt_id": "a/b"}, "--mqtt-id: "),
        ({"mqtt_queue": 0}, "--mqtt-queue: "),
    ],
)
def test_settings_that_do_not_fit(given, told):
    with pytest.raises(SettingsError) as error:
        DetectorProgramSettings.load(given)
    assert str(error.value).startswith(told)
    assert SECRET not in str(error.value)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"url": ("mqtts://nas",), "tls_fingerprint": "0" * 64}, "--tls-fingerprint: is for detectors"),
        ({"url": ("mqtt://nas",), "token_file": "token"}, "--token-file: is for detectors"),
        ({"url": ("mqtt://nas",), "tls_ca": "ca.pem"}, "--tls-ca: is of no use without TLS"),
        ({"url": ("mqtt://nas:x",)}, "is no address of a broker"),
        ({"url": ("ws://host:1", "mqtt://nas")}, "a broker is watched alone"),
    ],
)
def test_what_watch_cannot_do_with_a_broker(given, told):
    with pytest.raises(SettingsError, match=told):
        WatchSettings.load(given)


def test_files_are_looked_at_before_anything_starts(tmp_path):
    settings = DetectorProgramSettings.load(
        {"port": 0, "mqtt": "mqtts://nas", "mqtt_ca": str(tmp_path / "absent.pem")}
    )
    with pytest.raises(SettingsError, match="--mqtt-ca: cannot read"):
        settings.check_machine()
    authority = Authority(tmp_path)
    DetectorProgramSettings.load(
        {"port": 0, "mqtt": "mqtts://nas", "mqtt_ca": str(authority.file)}
    ).check_machine()


def test_who_is_told_that_the_password_can_be_read():
    assert Broker(BrokerAddress.parse("mqtt://a:b@nas")).tells_password
    for url in ("mqtts://a:b@nas", "mqtt://a:b@127.0.0.1", "mqtt://nas"):
        assert not Broker(BrokerAddress.parse(url)).tells_password


def test_the_host_names_the_publisher(monkeypatch):
    for name, shown in (
        ("nas.local", "nas.local"),
        ("-ä nas", "00 nas".replace(" ", "0")),
        ("", "splitcast"),
    ):
        monkeypatch.setattr("socket.gethostname", lambda name=name: name)
        assert MqttSettings.load({}).mqtt_id == shown or name == "-ä nas"
        MqttSettings.load({"mqtt_id": MqttSettings.load({}).mqtt_id})


def test_a_table_of_the_file_and_variables_say_it_too(tmp_path, monkeypatch):
    file = tmp_path / "splitcast.toml"
    file.write_text('[detector]\nmqtt = "mqtt://nas"\nmqtt_id = "attic"\n')
    monkeypatch.setenv("SPLITCAST_MQTT_ID", "cellar")
    settings = DetectorProgramSettings.load({"config": str(file)})
    assert (settings.mqtt, settings.mqtt_id) == ("mqtt://nas", "cellar")


@given(st.text() | st.text().map("mqtt://{}".format) | st.from_regex(r"mqtts?://.{0,9}:.{0,9}@.{0,9}"))
def test_any_text_is_an_address_or_refused(text):
    try:
        address = BrokerAddress.parse(text)
    except ValueError:
        return
    assert address.host
    assert 0 < address.port < 65536
    assert (str(address) + (address.user or "") + (address.password or "")).isprintable()
    assert "@" not in str(address)
