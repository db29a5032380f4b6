"""The camera's session at the detector: whether it would be taken, and whether the link carries its frames."""

from __future__ import annotations

from collections.abc import Mapping

from services.camera.settings import CameraSettings
from services.doctor.finding import Finding, doubtful, fine, unchecked, wrong
from services.doctor.frame_cost import COMFORT, FrameCost
from services.doctor.trial import MeasuredLink
from stream.errors import ConnectionLost
from stream.session.camera import Accepted
from stream.session.close_codes import PERMANENT, CloseCode

_PASSING: Mapping[int, str] = {  # refusals that another moment may not bring
    CloseCode.STREAM_TAKEN: "if that camera is this one, all is well; else name this one by --stream",
    CloseCode.TOO_MANY_STREAMS: "raise what the detector's reason names, or use another detector",
    CloseCode.TRY_AGAIN_LATER: "look again once it is ready",
    CloseCode.GOING_AWAY: "look again once it is back",
}
_ADVICE: Mapping[int, str] = {
    CloseCode.STREAM_NOT_GRANTED: "name a stream that the token grants by --stream, or have another token made",
    CloseCode.WEIGHTS_DIFFER: "start both with the same --model",
    CloseCode.SPLIT_UNKNOWN: "give the camera --split as the detector has it",
    CloseCode.PREVIEW_REFUSED: "leave out --preview",
    CloseCode.PROFILE_REFUSED: "start the detector with --profile and this profile, or without --no-profiles",
    CloseCode.PROTOCOL_VERSION: "install the same version of Splitcast at both ends",
    CloseCode.TOO_COSTLY: "take a smaller --size, or raise --max-side or --max-tail-ms of the detector",
    CloseCode.PACKET_TOO_LARGE: "take a smaller --size or another --codec, or raise the detector's --max-packet-mib",
}
_LATE_S = 0.5  # there and back, from which a picture is old when its detections come


def judge_refusal(lost: ConnectionLost) -> Finding:
    """What is to be said of a detector that does not take this camera's settings."""
    facts = {"code": lost.code, "reason": lost.reason}
    measured = f"the detector refuses this camera ({int(lost.code)}): {lost.reason}"
    if lost.code == CloseCode.BAD_MESSAGE and "'trial'" in lost.reason:
        return unchecked("the detector is older than this program, and knows no trial")
    if lost.code in _PASSING:
        return doubtful(measured, _PASSING[lost.code], **facts)
    if lost.code in PERMANENT or lost.code in _ADVICE:
        return wrong(measured, _ADVICE.get(lost.code, "see its reason"), **facts)
    raise lost


def judge_welcome(settings: CameraSettings, accepted: Accepted) -> Finding:
    """What is to be said of a detector that would take this camera."""
    pace = "any number of" if accepted.frames_per_s is None else f"{accepted.frames_per_s:g}"
    return fine(
        f"the detector would take stream {settings.stream!r}: weights, split and codec agree; {pace} frames/s, "
        f"{accepted.window} unanswered at most",
        window=accepted.window,
        frames_per_s=accepted.frames_per_s,
    )


def judge_way(
    way: MeasuredLink, settings: CameraSettings, cost: FrameCost | None, wanted_fps: float | None
) -> Finding:
    """What is to be said of a link that has to carry so many frames a second."""
    trip_ms, jitter_ms = way.round_trip_s * 1000, way.jitter_s * 1000
    at_least = "at least " if way.is_least else ""
    measured = f"round trip {trip_ms:.1f} ms (+{jitter_ms:.1f}), {at_least}{_rate(way.kbps)} to the detector"
    facts: dict[str, object] = {
        "round_trip_ms": round(trip_ms, 3),
        "jitter_ms": round(jitter_ms, 3),
        "kbps": round(way.kbps),
        "is_least": way.is_least,
    }
    faults = _lateness(way, settings, cost)
    if wanted_fps:
        faults += _fewer_frames(way, settings, wanted_fps)
    if cost and wanted_fps:
        needed_kbps = 8 * cost.packet_bytes * wanted_fps / 1000
        if settings.target_kbps:  # which rate control sees to
            needed_kbps = min(needed_kbps, settings.target_kbps)
        facts["needed_kbps"] = round(needed_kbps)
        measured += f"; {_rate(needed_kbps)} are needed ({cost.packet_bytes / 1000:.1f} kB a frame)"
        if way.max_packet_bytes < COMFORT * cost.packet_bytes:
            too_large = f"packets may have {way.max_packet_bytes / 1000:.1f} kB: larger ones are dropped"
            faults.append(
                (too_large, "have the token made with a larger --max-packet-kib, or code more coarsely")
            )
        if way.kbps < COMFORT * needed_kbps:
            advice = f"--target-kbps {max(1, int(0.8 * way.kbps))}, a coarser --codec, or fewer frames"
            faults.insert(0, ("that is too little", advice))
    if not faults:
        return fine(measured, **facts)
    what, advices = zip(*faults, strict=True)
    return doubtful(f"{measured}; {', '.join(what)}", "; ".join(advices), **facts)


def _fewer_frames(way: MeasuredLink, settings: CameraSettings, wanted_fps: float) -> list[tuple[str, str]]:
    """Why fewer frames than these will go, each with what to do."""
    faults, trip_s = [], way.round_trip_s
    window = min(settings.window, way.window)
    if window / trip_s < COMFORT * wanted_fps:
        needed = int(COMFORT * wanted_fps * trip_s) + 1
        whose = "--window of the detector" if settings.window > way.window else "--window"
        faults.append(
            (f"{window} unanswered frames allow {window / trip_s:.1f} frames/s", f"{whose} {needed}")
        )
    if way.frames_per_s and way.frames_per_s < wanted_fps:
        faults.append(
            (f"the token allows {way.frames_per_s:g} frames/s", "have one made with more --frames-per-s")
        )
    return faults


def _lateness(way: MeasuredLink, settings: CameraSettings, cost: FrameCost | None) -> list[tuple[str, str]]:
    """Why detections will be late, with what to do."""
    trip_ms, frame_ms, most_ms = way.round_trip_s * 1000, cost.ms if cost else 0.0, settings.max_latency_ms
    if most_ms and trip_ms + frame_ms > most_ms:
        what = f"with {frame_ms:.0f} ms of this machine's that is more than --max-latency-ms {most_ms:g}"
        return [(what, "allow more, or take a detector that is nearer, or a smaller --size")]
    if way.round_trip_s > _LATE_S:
        return [("detections will be late", "a detector that is nearer, or another link")]
    return []


def _rate(kbps: float) -> str:
    return f"{kbps / 1000:.1f} Mbit/s" if kbps >= 1000 else f"{kbps:.0f} kbit/s"
