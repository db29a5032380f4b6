"""The command `splitcast`. Each command imports what it needs: torch takes seconds, `watch` does without."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import sys
import threading
from argparse import (
    ArgumentParser,
    ArgumentTypeError,
    BooleanOptionalAction,
    Namespace,
    RawDescriptionHelpFormatter,
)
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from services.camera.settings import CameraSettings
from services.detector.settings import DetectorSettings
from services.environment import prepare_process
from services.errors import Exit, exit_code
from services.logs import configure_logs
from services.settings import DEFAULT_CODEC, Settings
from services.signals import run_until_stopped
from services.study import NAMES


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = build_parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except KeyboardInterrupt:
        return Exit.OK
    except BrokenPipeError:
        # The reader of our output has left, as `head` does; Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.OK
    except Exception as error:
        code = exit_code(error)
        if code is None:
            raise
        print(f"splitcast: {error}", file=sys.stderr)
        return code


def run() -> None:
    """The console script: `main`, and the end of the process even where a thread still works.

    A download or a stalled read may take minutes, and the interpreter would wait for it.
    """
    prepare_process()
    code = main()
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join(timeout=0.2)
            if thread.is_alive():
                logging.shutdown()
                sys.stdout.flush()
                os._exit(code)
    sys.exit(code)


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="splitcast",
        description="Split video detection: the camera runs the first layers and sends features, not pixels.",
    )
    parser.add_argument("--version", action="version", version=f"splitcast {version('splitcast')}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name: str, run: Callable[[Namespace], int], text: str) -> ArgumentParser:
        command = commands.add_parser(
            name, help=text, description=text, formatter_class=RawDescriptionHelpFormatter
        )
        command.set_defaults(run=run)
        return command

    _add_settings(add("camera", _camera, "stream features of a camera or file to a detector"), CameraSettings)
    _add_settings(add("detector", _detector, "finish the network and publish detections"), DetectorSettings)

    watch = add("watch", _watch, "print detections as they are published")
    watch.add_argument(
        "url", nargs="?", default="ws://127.0.0.1:8765", help="detector (default: %(default)s)"
    )
    watch.add_argument("--stream", help="only this stream")
    watch.add_argument("--json", action="store_true", help="JSON lines instead of readable ones")
    watch.add_argument("--count", type=int, help="stop after so many messages")

    demo = add("demo", _demo, "camera and detector on this machine, over a real loopback WebSocket")
    demo.add_argument(
        "--source",
        default="demo",
        help="webcam number, rtsp://..., file, folder, or the virtual camera demo:scene=bus (default: demo)",
    )
    demo.add_argument("--model", default="demo", help="network by name or path (default: the embedded one)")
    demo.add_argument("--size", default="640", help="network input (default: %(default)s)")
    demo.add_argument("--codec", default=DEFAULT_CODEC, help="codec (default: %(default)s)")
    demo.add_argument(
        "--seconds", type=_seconds, default=30.0, help="how long; 0: until Ctrl-C (default: 30)"
    )
    demo.add_argument("--threads", type=int, default=1, help="torch threads of each process (default: 1)")
    demo.add_argument("--device", default="auto", help="torch device (default: auto)")
    demo.add_argument("--preview", action="store_true", help="show small pictures on the page, too")
    demo.add_argument(
        "--open",
        action=BooleanOptionalAction,
        help="open the live page in a browser (default: where there is a screen)",
    )
    demo.add_argument("--json", type=Path, metavar="OUT", help="write the summary there too")

    points = add("points", _points, "list the split points of a network")
    points.add_argument("--model", default="yolov5n", help="network by name or path (default: %(default)s)")
    points.add_argument("--size", default="640x640", help="network input HEIGHTxWIDTH (default: %(default)s)")
    points.add_argument("--json", action="store_true", help="JSON instead of a table")

    _add_advise(add("advise", _advise, "where to split a network for a link, and whether to split it at all"))
    _add_evaluate(add("evaluate", _evaluate, "measure what codecs cost in bytes and in detections"))
    _add_calibrate(add("calibrate", _calibrate, "fit the feature codec to a network on sample images"))
    _add_profile(add("profile", lambda _: Exit.USAGE, "calibration profiles of the feature codec"))

    _add_study(add("study", _study, "reproduce the paper's tables and figures, and go on from there"))

    encode = add("encode", _encode, "encode tensors of an .npz file, arrays named by layer")
    encode.add_argument("input", type=Path, metavar="IN.npz")
    encode.add_argument("output", type=Path, metavar="OUT.spc")
    encode.add_argument("--codec", default="rle:bits=4", help="codec (default: %(default)s)")

    decode = add("decode", _decode, "decode packets of an .spc file into an .npz file")
    decode.add_argument("input", type=Path, metavar="IN.spc")
    decode.add_argument("output", type=Path, metavar="OUT.npz")

    _add_bench(add("bench", lambda _: Exit.USAGE, "measure the pipeline on this machine"))
    return parser


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ArgumentTypeError(f"{text!r} is no number of seconds, 0 or more")
    return seconds


def _add_advise(advise: ArgumentParser) -> None:
    advise.add_argument("--model", default="yolov5n", help="network by name or path (default: %(default)s)")
    advise.add_argument(
        "--link-kbps", type=float, required=True, metavar="N", help="what the link carries, kbit/s"
    )
    advise.add_argument("--rtt-ms", type=float, default=0.0, metavar="N", help="its round trip (default: 0)")
    advise.add_argument(
        "--detector-speed",
        type=float,
        default=1.0,
        metavar="F",
        help="how many times faster the detector's machine is than this one (default: 1)",
    )
    advise.add_argument(
        "--fps", type=float, default=0.0, metavar="N", help="frame rate that has to be sustained"
    )
    advise.add_argument(
        "--source",
        default="demo",
        help="video file or folder of images as your camera's; or the virtual camera (default: demo)",
    )
    advise.add_argument("--frames", type=int, default=10, metavar="N", help="at most so many (default: 10)")
    advise.add_argument(
        "--split",
        action="append",
        metavar="P",
        help="try codecs at this point; may be repeated (default: 4.m and the most promising)",
    )
    advise.add_argument("--codec", help="codec of features (default: the better of feature and rle:bits=4)")
    advise.add_argument(
        "--profile", type=Path, metavar="FILE", help="calibration profile, for its own split point"
    )
    advise.add_argument("--size", default="640", help="network input (default: %(default)s)")
    advise.add_argument("--threads", type=int, default=1, help="torch threads (default: 1)")
    advise.add_argument("--device", default="auto", help="torch device (default: auto)")
    advise.add_argument("--json", type=Path, metavar="OUT", help="write the figures and the advice there")


def _add_evaluate(evaluate: ArgumentParser) -> None:
    evaluate.add_argument("--model", default="yolov5n", help="network by name or path (default: %(default)s)")
    evaluate.add_argument(
        "--data", type=Path, metavar="FOLDER", help="folder of images; YOLO labels beside it are used"
    )
    evaluate.add_argument("--labels", type=Path, metavar="FILE", help="COCO's labels of those images, a JSON")
    evaluate.add_argument(
        "--clip", type=Path, action="append", metavar="FILE", help="video file; may be repeated"
    )
    evaluate.add_argument(
        "--codec",
        action="append",
        metavar="SPEC",
        help="codec, of features (feature, rle, raw) or pixels (jpeg, webp, avif, x264, x264-medium, x265, svt-av1); "
        "may be repeated; a name alone stands for its standard set (default: all of them)",
    )
    evaluate.add_argument(
        "--profile",
        type=Path,
        metavar="FILE",
        help="calibration profile of the feature codec (default: shipped)",
    )
    evaluate.add_argument("--split", default="4.m", help="split point (default: %(default)s)")
    evaluate.add_argument("--size", default="640", help="network input (default: %(default)s)")
    evaluate.add_argument("--max-frames", type=int, metavar="N", help="at most so many frames of each source")
    evaluate.add_argument(
        "--every", type=int, default=1, metavar="N", help="only every n-th frame or image (default: 1)"
    )
    evaluate.add_argument("--threads", type=int, default=1, help="torch threads (default: 1)")
    evaluate.add_argument("--device", default="auto", help="torch device (default: auto)")
    evaluate.add_argument("--json", type=Path, metavar="OUT", help="write the records there")
    evaluate.add_argument("--html", type=Path, metavar="OUT", help="write a page with plots and words there")


def _add_calibrate(calibrate: ArgumentParser) -> None:
    calibrate.add_argument(
        "--model", default="yolov5n", help="network by name or path (default: %(default)s)"
    )
    calibrate.add_argument("--split", default="4.m", help="split point (default: %(default)s)")
    calibrate.add_argument(
        "--images",
        type=Path,
        required=True,
        metavar="FOLDER|LIST",
        help="folder of images, or text file with one path a line; 16 images or more, as the cameras will see",
    )
    calibrate.add_argument("--size", default="640", help="network input (default: %(default)s)")
    calibrate.add_argument("--max-images", type=int, metavar="N", help="only the first N images")
    calibrate.add_argument(
        "--draws",
        type=int,
        default=3,
        help="random samples of the sensitivity an image (default: %(default)s)",
    )
    calibrate.add_argument(
        "--variants",
        type=int,
        default=8,
        help="other views of an image, nearer, farther or mirrored (default: %(default)s)",
    )
    calibrate.add_argument("--seed", type=int, default=0, help="of all that is random (default: %(default)s)")
    calibrate.add_argument("--threads", type=int, default=1, help="torch threads (default: 1)")
    calibrate.add_argument("--device", default="auto", help="torch device (default: auto)")
    calibrate.add_argument(
        "-o", "--output", type=Path, required=True, metavar="PROFILE", help="write the profile there"
    )


def _add_study(study: ArgumentParser) -> None:
    study.add_argument(
        "name", choices=("all", *NAMES), metavar="NAME", help=f"all, or one of {', '.join(NAMES)}"
    )
    study.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="records, figures and report go there; what is recorded there already is not measured again",
    )
    study.add_argument(
        "--model",
        action="append",
        metavar="SPEC",
        help="network NAME, at a layer NAME@LAYER, with weights NAME=FILE or NAME=random, or a .pt file; may be "
        "repeated (default: yolov5n, vgg16, resnet50 and resnet152 at the paper's layers)",
    )
    study.add_argument(
        "--data", type=Path, metavar="FOLDER", help="folder of images; YOLO labels beside it are used"
    )
    study.add_argument("--labels", type=Path, metavar="FILE", help="COCO's labels of those images, a JSON")
    study.add_argument("--imagenet", type=Path, metavar="FOLDER", help="images in one folder a class")
    study.add_argument(
        "--clip",
        type=Path,
        action="append",
        metavar="FILE",
        help="video file; may be repeated; the first should show a nearly static scene",
    )
    study.add_argument("--images", type=int, metavar="N", help="at most so many images (default: all)")
    study.add_argument("--size", default="640", help="input of detectors (default: %(default)s)")
    study.add_argument("--quick", action="store_true", help="16 images and few settings: two minutes")
    study.add_argument("--from-records", action="store_true", help="measure nothing, draw what is recorded")
    study.add_argument("--seed", type=int, default=0, help="of all that is random (default: %(default)s)")
    study.add_argument("--threads", type=int, default=1, help="torch threads (default: 1)")
    study.add_argument("--device", default="auto", help="torch device (default: auto)")


def _add_profile(profile: ArgumentParser) -> None:
    actions = profile.add_subparsers(title="actions", required=True, metavar="ACTION")
    text = "print what a profile was made from and holds"
    show = actions.add_parser("show", help=text, description=text)
    show.set_defaults(run=_profile_show)
    show.add_argument(
        "profile", metavar="FILE|HASH", help="a profile's file, or the hash of one that is shipped"
    )


def _add_bench(bench: ArgumentParser) -> None:
    benches = bench.add_subparsers(title="benchmarks", required=True, metavar="NAME")
    text = "frames/s of camera and detector over loopback against the bare loop model(frame)"
    pipeline = benches.add_parser("pipeline", help=text, description=text)
    pipeline.set_defaults(run=_bench_pipeline)
    pipeline.add_argument("--model", default="yolov5n", help="network by name or path (default: %(default)s)")
    pipeline.add_argument("--source", required=True, help="video file")
    pipeline.add_argument("--codec", default=DEFAULT_CODEC, help="codec (default: %(default)s)")
    pipeline.add_argument("--split", default="4.m", help="split point (default: %(default)s)")
    pipeline.add_argument("--size", default="640", help="network input (default: %(default)s)")
    pipeline.add_argument("--threads", type=int, default=1, help="torch threads of each process (default: 1)")
    pipeline.add_argument("--device", default="auto", help="torch device (default: auto)")
    pipeline.add_argument("--frames", type=int, default=150, help="frames a round (default: %(default)s)")
    pipeline.add_argument("--rounds", type=int, default=5, help="rounds (default: %(default)s)")
    pipeline.add_argument("--json", type=Path, metavar="OUT", help="write the record there")


def _add_settings(parser: ArgumentParser, settings: type[Settings]) -> None:
    settings.add_flags(parser)
    parser.add_argument("--config", type=Path, help=f"TOML file; the table [{settings.table()}] is read")
    parser.epilog = (
        "Every flag is also a variable SPLITCAST_FLAG and a key of the TOML table; flags win over variables, "
        "variables over the file."
    )


def _flags(options: Namespace) -> dict[str, Any]:
    return {name: value for name, value in vars(options).items() if name not in ("run", "config")}


def _camera(options: Namespace) -> int:
    config = CameraSettings.load(_flags(options), options.config)
    configure_logs(config.log_format, config.log_level)

    async def run() -> None:
        from services.camera.metrics import serve_metrics
        from services.camera.service import Camera

        camera = Camera(config)
        async with serve_metrics(camera.statistics.metrics, config):
            await run_until_stopped(camera.run(), camera.stop)

    asyncio.run(run())
    return Exit.OK


def _detector(options: Namespace) -> int:
    config = DetectorSettings.load(_flags(options), options.config)
    configure_logs(config.log_format, config.log_level)

    async def run() -> None:
        from services.detector.service import Detector

        detector = Detector(config)
        await run_until_stopped(detector.run(), detector.stop)

    asyncio.run(run())
    return Exit.OK


def _watch(options: Namespace) -> int:
    from services.commands.watch import detections_url, watch

    asyncio.run(watch(detections_url(options.url, options.stream), options.json, options.count))
    return Exit.OK


def _demo(options: Namespace) -> int:
    from services.commands.demo import demo

    configure_logs("auto", "error")
    try:
        detections = asyncio.run(demo(options))
    except KeyboardInterrupt:  # before there was a camera to stop
        return Exit.NOTHING_DETECTED
    return Exit.OK if detections else Exit.NOTHING_DETECTED


def _points(options: Namespace) -> int:
    from services.commands.points import print_points
    from stream.letterbox import parse_size

    size = parse_size(options.size)
    print_points(options.model, (size, size) if isinstance(size, int) else size, options.json)
    return Exit.OK


def _advise(options: Namespace) -> int:
    from services.evaluation.advise import run_advise

    configure_logs("text", "error")  # the table tells which codec is not calibrated
    run_advise(options)
    return Exit.OK


def _evaluate(options: Namespace) -> int:
    from services.evaluation.evaluate import run_evaluate

    configure_logs("text", "warning")
    run_evaluate(options)
    return Exit.OK


def _calibrate(options: Namespace) -> int:
    from services.calibration.calibrate import run_calibrate

    run_calibrate(options)
    return Exit.OK


def _study(options: Namespace) -> int:
    from services.study.run import run_study

    configure_logs("text", "error")  # experiments tell of uncalibrated codecs themselves
    run_study(options)
    return Exit.OK


def _profile_show(options: Namespace) -> int:
    from services.commands.describe import print_profile

    print_profile(options.profile)
    return Exit.OK


def _encode(options: Namespace) -> int:
    from codec.spec import parse_codec
    from services.commands.transcode import encode_file
    from services.profiles import without_network

    configure_logs("text", "warning")
    print(encode_file(options.input, options.output, without_network(parse_codec(options.codec))))
    return Exit.OK


def _decode(options: Namespace) -> int:
    from services.commands.transcode import decode_file

    print(decode_file(options.input, options.output))
    return Exit.OK


def _bench_pipeline(options: Namespace) -> int:
    from services.commands.bench import run_bench_pipeline

    configure_logs("text", "warning")
    run_bench_pipeline(options)
    return Exit.OK


if __name__ == "__main__":
    run()
