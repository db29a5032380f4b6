from __future__ import annotations

import json
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.errors import UnknownProfile
from codec.spec import Codec
from stream.errors import SessionError
from stream.session.ack import Ack
from stream.session.camera import (
    tensor_shapes,
)
from stream.session.close_codes import PERMANENT, CloseCode
from stream.session.detector import (
    PREVIEW_BURST,
    PREVIEW_INTERVAL_NS,
    REPORT_BURST,
    REPORT_INTERVAL_NS,
    DetectorSession,
    check_address,
    check_codec,
    check_hello,
    check_layout,
    check_name,
)
from stream.session.messages import (
    REJECT_REASONS,
    Clock,
    Hello,
    Preview,
    RateReport,
    Report,
    TensorShape,
    Waiting,
)
from stream.session.preview import MAX_BYTES
from tests.stream.session.peers import (
    JPEG,
    LAYOUT,
    PROFILE,
    WEIGHTS,
    make_hello,
    open_detector,
)

WHOLE_REPORT = Report(
    captured=4,
    detected=3,
    in_flight=1,
    dropped={"grab/superseded": 2},
    source="clip.mp4",
    source_state="frozen",
    keyframes={"first": 1},
    rate=RateReport(link_kbps=1.0, queue_ms=2.0),
    clock=Clock(monotonic_ns=1, unix_ns=2),
    frames_repeated=7,
)


class TestSession:
    def test_a_camera_may_wait_before_its_hello_and_not_after_it(self):
        session = DetectorSession(2)
        waiting = Waiting(stream="door", session="0" * 32, source="demo", source_state="opening")
        assert session.receive_text(waiting.text()) == session.receive_text(waiting.text()) == waiting
        hello = make_hello(session="0" * 32)
        assert session.receive_text(hello.text()) == hello
        with pytest.raises(SessionError, match="after the hello"):
            session.receive_text(waiting.text())

    @pytest.mark.parametrize("changes", [{"stream": "porch"}, {"session": "1" * 32}, {"session": None}])
    def test_a_camera_that_waits_stays_the_same(self, changes):
        session = DetectorSession(2)
        waiting = Waiting(stream="door", session="0" * 32, source="demo", source_state="opening")
        session.receive_text(waiting.text())
        with pytest.raises(SessionError, match="another camera than the one that waits"):
            session.receive_text(make_hello(**{"session": "0" * 32} | changes).text())

    @pytest.mark.parametrize(("secret", "told"), [("0" * 32, 1), (None, 0)])
    def test_an_older_camera_is_told_nothing_that_it_does_not_know(self, secret, told):
        session = open_detector(session=secret)
        assert len(session.set_window(1)) == len(session.retry(0.5)) == told

    def test_a_camera_that_waits_may_be_told_when_to_come_back(self):
        session = DetectorSession(2)
        assert session.retry(0.5) == []
        session.receive_text(
            Waiting(stream="door", session="0" * 32, source="demo", source_state="opening").text()
        )
        assert [json.loads(text)["type"] for text in session.retry(0.5)] == ["retry"]

    def test_reports_may_come_in_a_burst_but_not_for_ever(self):
        session = open_detector()
        for _ in range(REPORT_BURST):
            session.receive_report(5 * 10**9)
        session.receive_report(5 * 10**9 + REPORT_INTERVAL_NS)
        with pytest.raises(SessionError, match="more than 4 reports a second") as refusal:
            session.receive_report(5 * 10**9 + REPORT_INTERVAL_NS)
        assert refusal.value.code is CloseCode.BAD_MESSAGE

    def test_refuses_packets_before_the_welcome(self):
        with pytest.raises(SessionError, match="before the welcome"):
            DetectorSession(2).receive_packet(10)

    def test_refuses_more_packets_than_the_window(self):
        session = open_detector(window=2)
        session.receive_packet(10)
        session.receive_packet(10)
        with pytest.raises(SessionError) as refusal:
            session.receive_packet(10)
        assert refusal.value.code is CloseCode.WINDOW_EXCEEDED

    def test_an_answer_opens_the_window(self):
        session = open_detector(window=1)
        for sequence in range(5):
            session.receive_packet(10)
            session.acknowledge(sequence, 0, {})

    def test_refuses_packets_larger_than_agreed(self):
        with pytest.raises(SessionError) as refusal:
            open_detector().receive_packet(1001)
        assert refusal.value.code is CloseCode.PACKET_TOO_LARGE

    def test_asks_for_a_keyframe_until_one_is_decoded(self):
        """What was on its way when it asked is no news; a damaged packet that came later may have been the keyframe."""
        session, asked = open_detector(window=1), []

        def reject(reason: str, received_ms: int, now_ms: int) -> None:
            session.receive_packet(10)
            texts = session.reject(reason, "", received_ns=received_ms * MS, now_ns=now_ms * MS)
            asked.append(json.loads(texts[-1])["type"] == "keyframe")

        reject("corrupt", 0, 10)
        reject("missing_reference", 5, 20)
        reject("corrupt", 9, 30)  # it was here before the request went
        reject("corrupt", 40, 50)
        reject("missing_reference", 60, 70)
        reject("missing_reference", 540, 550)  # no keyframe, though one could have come
        session.receive_packet(10)
        session.acknowledge(6, 0, {})
        reject("reference_mismatch", 560, 570)
        reject("error", 580, 590)  # which was decoded
        reject("reference_mismatch", 600, 610)
        reject("lost", 620, 630)  # what decoded is gone, perhaps with the keyframe that was asked for
        reject("missing_reference", 640, 650)
        assert asked == [True, False, False, True, False, True, True, False, True, True, False]

    @pytest.mark.parametrize(
        ("announced", "expected"),
        [
            ({}, "corrupt"),  # an older camera
            ({"reject_reasons": ("corrupt", "error")}, "corrupt"),
            ({"reject_reasons": REJECT_REASONS}, "reference_mismatch"),
        ],
    )
    def test_gives_no_reason_that_the_camera_does_not_know(self, announced, expected):
        session = open_detector(**announced)
        session.receive_packet(10)
        reject, _ = session.reject("reference_mismatch", "checksum", received_ns=0, now_ns=0)
        assert json.loads(reject) == {"type": "reject", "reason": expected, "detail": "checksum"}

    @pytest.mark.parametrize(
        ("data", "words"),
        [(bytes(101), "101 bytes; allowed: 100"), (b"x", "is not calibration profile"), (b"", "is not")],
    )
    def test_refuses_what_is_not_the_profile_it_asked_for(self, data, words):
        session = DetectorSession(2)
        session.receive_text(make_hello().text())
        assert json.loads(session.request_profile(PROFILE)) == {"type": "profile_request", "hash": PROFILE}
        with pytest.raises(SessionError, match=words) as refusal:
            session.receive_profile(data, max_bytes=100)
        assert refusal.value.code is CloseCode.PROFILE_REFUSED

    def test_any_number_of_a_packet_is_acknowledged(self):
        session = open_detector()
        session.receive_packet(10)
        assert Ack.parse(session.acknowledge(2**32 - 1, 300, {})).answers(2**32 - 1)

    def test_a_report_has_what_the_one_before_said(self):
        session = open_detector()
        first = session.receive_text(WHOLE_REPORT.text())
        assert first == WHOLE_REPORT
        short = session.receive_text('{"type":"report","captured":6,"detected":5,"in_flight":1,"rate":null}')
        expected = {"captured": 6, "detected": 5, "in_flight": 1, "rate": None}
        assert short == WHOLE_REPORT.model_copy(update=expected)
        assert session.receive_text('{"type":"report","captured":7,"detected":5,"in_flight":2}') == (
            short.model_copy(update={"captured": 7, "in_flight": 2})
        )

    def test_a_first_report_may_leave_out_nearly_everything(self):
        text = '{"type":"report","captured":6,"detected":5,"in_flight":1}'
        assert open_detector().receive_text(text) == Report(captured=6, detected=5, in_flight=1)

    def test_refuses_a_long_text_before_parsing_it(self):
        text = '{"type":"hello","x":[' + "{}," * 2**16 + "{}]}"
        with pytest.raises(SessionError, match="at most 65536"):
            DetectorSession(2).receive_text(text)

    def test_refuses_a_report_of_many_names(self):
        report = {
            "type": "report",
            **dict.fromkeys(("captured", "detected", "in_flight"), 0),
            **{name: {} for name in ("dropped", "reconnects", "keyframes")},
            "source": "",
            "source_state": "open",
        }
        session = open_detector()
        session.receive_text(json.dumps(report))
        with pytest.raises(SessionError, match="dropped"):
            session.receive_text(json.dumps(report | {"dropped": {str(n): 1 for n in range(33)}}))

    def test_refuses_a_second_hello(self):
        with pytest.raises(SessionError, match="second hello"):
            open_detector().receive_text(make_hello().text())

    @given(
        st.text(max_size=200) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps)
    )
    def test_refuses_any_other_text(self, text):
        with pytest.raises(SessionError):
            DetectorSession(2).receive_text(text)

    def test_takes_previews_that_were_announced(self):
        session = open_detector(preview=True)
        assert session.receive_text(Preview(jpeg=JPEG).text()) == Preview(jpeg=JPEG)
        assert json.loads(Preview(jpeg=JPEG).text()) == {"type": "preview", "jpeg": b64encode(JPEG).decode()}

    def test_refuses_a_preview_that_was_not_announced(self):
        with pytest.raises(SessionError, match="did not announce") as refusal:
            open_detector().receive_text(Preview(jpeg=JPEG).text())
        assert refusal.value.code is CloseCode.BAD_MESSAGE

    @pytest.mark.parametrize(
        ("jpeg", "words"),
        [
            ("", "not a whole JPEG"),
            ("/9j/2", "not base64"),
            ("/9j/2\n==", "not base64"),
            (b64encode(JPEG).decode() + "=", "not base64"),
            ("é", "not base64"),
            (b64encode(b"<script>").decode(), "not a whole JPEG"),
            (b64encode(JPEG[:-2] + bytes(40_000) + JPEG[-2:]).decode(), "at most 40000"),
            (["/9j/2Q=="], "jpeg: "),
            (7, "jpeg: "),
            (None, "jpeg: "),
        ],
    )
    def test_refuses_a_preview_that_is_no_small_jpeg(self, jpeg, words):
        with pytest.raises(SessionError, match=f"preview.jpeg: .*{words}|{words}") as refusal:
            open_detector(preview=True).receive_text(json.dumps({"type": "preview", "jpeg": jpeg}))
        assert refusal.value.code is CloseCode.BAD_MESSAGE

    def test_the_largest_preview_fits_a_text(self):
        largest = JPEG[:-2] + bytes(MAX_BYTES - len(JPEG)) + JPEG[-2:]
        assert len(largest) == MAX_BYTES
        text = Preview(jpeg=largest).text()
        assert open_detector(preview=True).receive_text(text).jpeg == largest

    def test_previews_may_come_in_a_burst_but_not_for_ever(self):
        session = open_detector(preview=True)
        for _ in range(PREVIEW_BURST):
            session.receive_preview(5 * 10**9)
        session.receive_preview(5 * 10**9 + PREVIEW_INTERVAL_NS)
        with pytest.raises(SessionError, match="more than 4 previews a second") as refusal:
            session.receive_preview(5 * 10**9 + PREVIEW_INTERVAL_NS)
        assert refusal.value.code is CloseCode.BAD_MESSAGE

    def test_previews_once_a_second_never_are_too_many(self):
        session = open_detector(preview=True)
        for second in range(1000):
            session.receive_preview(second * 10**9)


MS = 1_000_000


def check(hello: Hello) -> Codec:
    check_hello(hello, WEIGHTS, frozenset({"4.m"}), "yolov5n")
    return check_codec(hello, {})


class TestHandshake:
    def test_accepts_what_agrees(self):
        assert check(make_hello()).encoder(LAYOUT)
        check_layout(make_hello(), LAYOUT)

    @pytest.mark.parametrize(
        ("changes", "code", "words"),
        [
            ({"weights": "cd" * 32}, CloseCode.WEIGHTS_DIFFER, "cdcdcdcdcdcd, detector yolov5n abababababab"),
            ({"split": "9"}, CloseCode.SPLIT_UNKNOWN, "'9'; allowed: 4.m"),
            ({"codec": "rle:bits=9"}, CloseCode.CODEC_REFUSED, "bits"),
            ({"codec": "av1"}, CloseCode.CODEC_REFUSED, "av1"),
            ({"protocol": 1}, CloseCode.PROTOCOL_VERSION, "camera speaks protocol 1, detector 2"),
            ({"protocol": 3}, CloseCode.PROTOCOL_VERSION, "camera speaks protocol 3, detector 2"),
        ],
    )
    def test_refuses_with_a_reason_a_person_understands(self, changes, code, words):
        with pytest.raises(SessionError, match=words) as refusal:
            check(make_hello(**changes))
        assert refusal.value.code is code
        assert code in PERMANENT

    def test_an_address_may_name_no_stream_or_the_cameras(self):
        for addressed in (None, "door"):
            check_address(make_hello(), addressed)

    def test_what_comes_late_goes_by_its_cameras_address(self):
        check_address(make_hello(stream="door.late", late=True), "door")
        with pytest.raises(SessionError, match="must agree"):
            check_address(make_hello(stream="door.late", late=True), "door.late")

    def test_a_late_stream_is_named_so_and_no_other(self):
        check_name(make_hello())
        check_name(make_hello(stream="door.late", late=True))
        waiting = Waiting(stream="door.late", session="5e" * 16, source="0", source_state="opening")
        for message in (make_hello(stream="door.late"), make_hello(late=True), waiting):
            with pytest.raises(SessionError, match=r"names that end with \.late") as refusal:
                check_name(message)
            assert refusal.value.code in PERMANENT

    @pytest.mark.parametrize("addressed", ["", "yard", "Door", "é" * 200])
    def test_an_address_of_another_stream_is_refused_for_good(self, addressed):
        with pytest.raises(SessionError, match="must agree") as refusal:
            check_address(make_hello(), addressed)
        assert refusal.value.code is CloseCode.STREAM_DIFFERS
        assert refusal.value.code in PERMANENT

    def test_tells_which_profile_it_lacks(self):
        hello = make_hello(codec=f"feature:quality=3,profile={PROFILE}")
        with pytest.raises(UnknownProfile) as unknown:
            check_codec(hello, {})
        assert unknown.value.hash == PROFILE

    @pytest.mark.parametrize("profile", ["auto", "", "AB" * 32, "../../etc"])
    def test_refuses_a_profile_that_is_no_hash(self, profile):
        with pytest.raises(SessionError) as refusal:
            check_codec(make_hello(codec=f"feature:profile={profile}"), {})
        assert refusal.value.code is CloseCode.CODEC_REFUSED

    @pytest.mark.parametrize("name", ["a\0b", "é" * 40])
    def test_refuses_names_that_no_packet_can_carry(self, name):
        hello = make_hello(tensors=[TensorShape(name=name, shape=[1, 2, 3])])
        with pytest.raises(SessionError) as refusal:
            check_layout(hello, LAYOUT)
        assert refusal.value.code is CloseCode.SHAPES_DIFFER

    def test_refuses_other_shapes(self):
        with pytest.raises(SessionError, match=r"4\.m 32x60x80, detector 4\.cv2 32x60x80") as refusal:
            check_layout(make_hello(tensors=tensor_shapes(LAYOUT[1:])), LAYOUT)
        assert refusal.value.code is CloseCode.SHAPES_DIFFER
