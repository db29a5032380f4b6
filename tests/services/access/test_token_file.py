from __future__ import annotations

import pytest

from services.access.token_file import MAX_TOKENS, TokenSource, parse_tokens
from services.access.tokens import Quota, new_token, token_hash
from services.detector.settings import DetectorSettings
from services.errors import SettingsError

TOKEN = new_token()
HASH = token_hash(TOKEN)


NAME_STREAMS = "streams: name those that it grants"
LIMITS = {  # the least and the greatest
    "frames_per_s": (0.001, 1e4),
    "max_packet_kib": (1, 2**20),
    "max_side": (32, 65535),
    "preview": ("false", "true"),
    "profiles": ("false", "true"),
}
BEYOND = [
    *(("frames_per_s", value) for value in ("0", "nan", "inf", "10000.1")),
    *(("max_packet_kib", value) for value in (0, 2**20 + 1)),
    *(("max_side", value) for value in (31, 65536)),
]


def entry(**keys) -> str:
    own = {"name": '"door"', "hash": f'"{HASH}"', "roles": '["camera"]', "streams": '["door"]'}
    lines = [f"{key} = {value}" for key, value in (own | keys).items() if value is not None]
    return "\n".join(["[[token]]", *lines, ""])


def test_reads_what_each_token_grants(tmp_path):
    file = tmp_path / "tokens.toml"
    reader = entry(name='"desk"', hash=f'"{"0" * 64}"', roles='["consumer", "page"]', streams='["*"]')
    quota = {
        "frames_per_s": 15,
        "max_packet_kib": 64,
        "max_side": 640,
        "preview": "false",
        "profiles": "false",
    }
    file.write_text(f"# ours\n{entry(**quota)}\n{reader}")
    tokens = TokenSource(str(file)).read()
    grant = tokens.grant(TOKEN)
    assert grant
    assert (grant.owner, grant.roles, grant.streams) == ("door", {"camera"}, ("door",))
    assert grant.quota == Quota(15, 64 * 1024, 640, preview=False, profiles=False)
    assert [other.quota for other in tokens if other is not grant] == [Quota()]


def test_reads_a_text_in_place_of_a_file():
    source = TokenSource(entry())
    assert source.file is None
    assert source.read().grant(TOKEN)
    assert HASH not in str(source)


@pytest.mark.parametrize(
    "text", [entry().replace("[[token]]", "[[ token ]]"), f"token = [{{hash = '{HASH}'}}]", "#\n"]
)
def test_no_text_is_taken_for_a_path_which_errors_would_show(text):
    assert TokenSource(text).file is None


def test_a_detector_takes_either_from_its_variable(tmp_path, monkeypatch):
    (tmp_path / "tokens.toml").write_text(entry())
    for value in (str(tmp_path / "tokens.toml"), entry()):
        monkeypatch.setenv("SPLITCAST_TOKENS", value)
        assert TokenSource(DetectorSettings.load({}).tokens).read().grant(TOKEN)


def test_an_empty_file_lets_nobody_in(tmp_path):
    file = tmp_path / "tokens.toml"
    file.touch()
    assert len(TokenSource(str(file)).read()) == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[token", "not TOML"),
        (f"token = {'[' * 2**16}", "nested too deeply"),
        ('name = "door"', "name: it may hold tables"),
        ('token = "door"', "token: it may hold tables"),
        ('porch = 1\ndoor = "door"', "door: it may hold tables"),
        ('token = ["door"]', "token 1: Input should be a valid dictionary"),
        (entry(name=None), "token 1: name: Field required"),
        (entry(name='"a b"'), "token 1 ('a b'): name: must be 1 to 64 of"),
        (entry(hash=None), "token 1 ('door'): hash: must be the token's SHA-256"),
        (entry(hash='"0"'), "64 hexadecimal digits"),
        (entry(hash=f'"{"0" * 65}"'), "64 hexadecimal digits"),
        (entry(hash=f'"{"A" * 64}"'), "64 hexadecimal digits"),
        (entry(hash=f'"{TOKEN}"'), "this is a token itself: revoke it"),
        (entry(roles='["boss"]'), "token 1 ('door'): roles.0: Input should be 'camera'"),
        (entry(roles="[]"), "roles"),
        *(
            (entry(roles=f'["{role}"]', streams=None), NAME_STREAMS)
            for role in ("camera", "consumer", "page")
        ),
        (
            entry(streams='["*door"]'),
            "begin with a letter or digit, or end with *",
        ),
        (entry(streams='["door*yard"]'), "streams.0"),
        (entry(streams=f'["{"a" * 64}*"]'), "streams.0: String should have at most 64"),
        *(
            (entry(roles='["consumer"]', **{limit: least}), f"{limit}: is for the role camera alone")
            for limit, (least, _) in LIMITS.items()
        ),
        *((entry(**{limit: value}), f"{limit}: ") for limit, value in BEYOND),
        (entry(shoes=1), "shoes: Extra inputs"),
        (entry() + entry(), "name: door and door have the same"),
        (entry() + entry(name='"porch"'), "hash: door and porch have the same"),
        ("[[token]]\n" * (MAX_TOKENS + 1), f"at most {MAX_TOKENS}"),
        (entry(name=f'"{TOKEN}"'), "token 1: name"),
    ],
)
def test_says_what_is_wrong_and_where_and_shows_no_secret(text, words):
    with pytest.raises(SettingsError) as error:
        parse_tokens(text, "tokens.toml")
    message = str(error.value)
    assert message.startswith("--tokens: tokens.toml")
    assert words in message
    assert HASH not in message
    assert TOKEN not in message


@pytest.mark.parametrize("bound", [0, 1])
def test_limits_reach_from_the_least_to_the_greatest(bound):
    (found,) = parse_tokens(entry(**{name: bounds[bound] for name, bounds in LIMITS.items()}), "tokens.toml")
    values = [getattr(found, name) for name in LIMITS]
    assert values == [
        {"false": False, "true": True}.get(bounds[bound], bounds[bound]) for bounds in LIMITS.values()
    ]


@pytest.mark.parametrize("stream", ["a" * 64, "a" * 63 + "*", "*"])
def test_a_stream_has_64_characters_at_most(stream):
    (found,) = parse_tokens(entry(streams=f'["{stream}"]'), "tokens.toml")
    assert found.streams == (stream,)


def test_says_where_the_fault_is(tmp_path):
    file = tmp_path / "tokens.toml"
    file.write_text(entry(name=None))
    for setting, where in ((str(file), str(file)), (entry(name=None), "the variable SPLITCAST_TOKENS")):
        with pytest.raises(SettingsError, match=f"^--tokens: {where}: token 1: name: Field required"):
            TokenSource(setting).read()


def test_a_long_name_is_not_repeated_in_full():
    with pytest.raises(SettingsError) as error:
        parse_tokens(entry(name=f'"{"a" * 1000}"'), "tokens.toml")
    assert str(error.value).count("a" * 64) == 1
    assert "a" * 65 not in str(error.value)


def test_metrics_need_no_streams():
    (grant,) = (found.grant for found in parse_tokens(entry(roles='["metrics"]', streams=None), "here"))
    assert not grant.may_stream("door")


def test_says_what_to_do_where_there_is_no_file(tmp_path):
    with pytest.raises(SettingsError, match=r"No such file.*splitcast token create"):
        TokenSource(str(tmp_path / "none.toml")).read()


def test_refuses_a_file_that_anybody_may_write_to(tmp_path):
    file = tmp_path / "tokens.toml"
    file.write_text(entry())
    file.chmod(0o602)
    with pytest.raises(SettingsError, match="chmod 600"):
        TokenSource(str(file)).read()


@pytest.mark.parametrize(("data", "words"), [(b"\xff", "UTF-8"), (b"#" * (2**20 + 1), "1 MiB")])
def test_refuses_what_is_no_such_file(tmp_path, data, words):
    file = tmp_path / "tokens.toml"
    file.write_bytes(data)
    with pytest.raises(SettingsError, match=words):
        TokenSource(str(file)).read()
