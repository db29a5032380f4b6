"""Agreement on detections whose AP is known, and evaluation of whole sources, small ones and real ones."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from codec.errors import BadCodecSpec
from codec.packet import Stamp
from codec.spec import parse_codec
from services.errors import MissingCodec, SettingsError
from services.evaluation import pixel_codecs as pixels
from services.evaluation.agreement import CEILING, confident
from services.evaluation.codec_sets import STANDARD_SETS, parse_codecs
from services.evaluation.dataset import read_clip, read_images
from services.evaluation.evaluate import evaluate, run_evaluate
from services.evaluation.pixel_codecs import PixelCodec
from services.evaluation.scores import EvaluationRecord
from services.evaluation.settings import EvaluateSettings
from stream.canvas import STRIDE, canvas_for
from stream.letterbox import Letterbox
from stream.network.engine import open_network
from stream.torch_network import sensitivity
from stream.torch_network.model import load_model
from stream.torch_network.nms import detect
from stream.torch_network.split import Unsplit
from tests.paths import DOCS
from tests.services.calibrated import make_profile
from tests.services.clips import FRAMES, SIZE


@pytest.fixture(scope="module")
def network(weights):
    return open_network(weights)


@pytest.fixture(scope="module")
def model(weights):
    return load_model(weights)


def scorable_detections(model, image, size):
    """What the network unsplit finds, run by torch."""
    height, width = image.shape[:2]
    letterbox = Letterbox((height, width), canvas_for(size, height, width, STRIDE))
    return detect(Unsplit(model)(letterbox.apply(image)), letterbox, conf=0.001, iou=0.6, multi_label=True)


@pytest.fixture(scope="module")
def clip_records(network, video):
    codecs = parse_codecs(["raw", "rle:bits=2", "rle:bits=8", "rle:bits=4,temporal=true", "rle:bits=4"])
    return evaluate(network, codecs, read_clip(video), size=SIZE)


class TestClip:
    def test_every_codec_has_a_record_beside_the_network_unsplit(self, clip_records, video):
        assert [record.codec for record in clip_records] == ["none", "raw", *["rle"] * 4]
        assert clip_records[4].setting == "bits=4,temporal=true,keyframe_interval=250"
        for record in clip_records:
            assert (record.clip, record.data, record.frames) == (video.name, None, FRAMES)
            assert (record.map, record.map50) == (None, None)
        assert [record.keyframes for record in clip_records[1:4]] == [FRAMES] * 3
        assert len({record.objects for record in clip_records}) == 1

    def test_the_ceiling_is_the_unsplit_network(self, clip_records):
        none = clip_records[0]
        assert none.objects > 0
        assert none.agreement == none.agreement50 == CEILING
        assert none.kb_per_frame is none.head_ms is none.keyframes is None
        assert none.unsplit_ms > 0

    def test_distortion_falls_with_quality(self, clip_records):
        none, raw, two, eight, temporal, intra = clip_records
        assert none.distortion == raw.distortion == 0
        assert 0 < eight.distortion < intra.distortion < two.distortion
        assert temporal.distortion == intra.distortion
        assert {record.anchors for record in clip_records} == {none.anchors}
        assert none.anchors > none.objects

    def test_every_frame_is_told_by_itself(self, clip_records):
        none, *coded = clip_records
        assert none.frame_bytes is none.frame_is_key is None
        for record in coded:
            assert len(record.frame_bytes) == len(record.frame_is_key) == FRAMES
            assert record.kb_per_frame == pytest.approx(sum(record.frame_bytes) / FRAMES / 1e3, abs=1e-3)
            assert sum(record.frame_is_key) == record.keyframes
            mean = sum(record.frame_distortion) / record.anchors
            assert record.distortion == pytest.approx(mean, abs=1e-4)

    def test_keyframes_and_differences_are_told_apart(self, clip_records):
        temporal, intra = clip_records[4:]
        first, *others = temporal.frame_bytes
        assert temporal.keyframe_kb == pytest.approx(first / 1e3, abs=1e-3)
        assert temporal.difference_kb == pytest.approx(sum(others) / len(others) / 1e3, abs=1e-3)
        assert temporal.difference_kb < temporal.keyframe_kb
        assert intra.difference_kb is None

    def test_raw_is_lossless_and_costs_a_header(self, clip_records):
        raw = clip_records[1]
        assert raw.agreement == raw.agreement50 == CEILING
        assert raw.raw_kb_per_frame == 2 * 32 * 8 * 12 * 4 / 1e3
        assert 32 < raw.bits_per_coefficient < 33
        assert raw.kb_per_frame > raw.raw_kb_per_frame
        assert min(raw.encode_ms, raw.decode_ms, raw.head_ms, raw.tail_ms, raw.unsplit_ms) > 0

    def test_more_bits_agree_better(self, clip_records):
        two, eight = clip_records[2:4]
        assert two.kb_per_frame < eight.kb_per_frame
        assert two.agreement < eight.agreement <= CEILING

    def test_prediction_saves_bytes_and_changes_no_detection(self, clip_records):
        temporal, intra = clip_records[4:]
        assert temporal.kb_per_frame < intra.kb_per_frame
        assert (temporal.agreement, temporal.agreement50) == (intra.agreement, intra.agreement50)

    def test_a_temporal_codec_keeps_its_state_along_the_clip(self, clip_records, network, video):
        """The bytes are those of one encoder that sees all frames in turn."""
        head = network.head("4.m", SIZE)
        encoder = parse_codec("rle:bits=4,temporal=true").encoder(head.layout)
        packets = []
        for number, picture in enumerate(read_clip(video).pictures):
            packets.append(encoder.encode(head(picture.image), Stamp(number, 0, *SIZE)))
        temporal = clip_records[4]
        assert temporal.keyframes == sum(packet.keyframe for packet in packets) < FRAMES
        assert temporal.kb_per_frame == pytest.approx(
            sum(len(packet.data) for packet in packets) / FRAMES / 1e3, abs=1e-3
        )


PIXELS = ["jpeg:quality=20", "jpeg:quality=95", "x264:crf=35", "x264:crf=8", "x264-medium:crf=20"]


@pytest.fixture(scope="module")
def pixel_records(network, video):
    told = []
    records = evaluate(
        network, parse_codecs([*PIXELS, "raw"]), read_clip(video, max_frames=10), size=SIZE, watch=told.append
    )
    assert told == [what for pass_ in ("features", *PIXELS) for what in [pass_] * 10]
    return records


class TestPixels:
    def test_records_come_as_the_codecs_were_given(self, pixel_records):
        assert [record.spec for record in pixel_records] == ["none", *PIXELS, "raw"]
        assert {(record.frames, record.objects) for record in pixel_records} == {
            (10, pixel_records[0].objects)
        }

    def test_higher_quality_costs_more_and_agrees_better(self, pixel_records):
        for worse, better in (pixel_records[1:3], pixel_records[3:5]):
            assert 0 < worse.kb_per_frame < better.kb_per_frame
            assert worse.agreement < better.agreement <= CEILING

    def test_what_belongs_to_tensors_is_left_open(self, pixel_records):
        for record in pixel_records[1:6]:
            assert record.raw_kb_per_frame is record.bits_per_coefficient is None
            assert record.head_ms is record.tail_ms is None
            assert record.unsplit_ms == pixel_records[0].unsplit_ms

    def test_pictures_are_keyframes_and_clips_have_one(self, pixel_records):
        assert [record.keyframes for record in pixel_records[1:6]] == [10, 10, 1, 1, 1]

    def test_every_codec_is_timed(self, pixel_records):
        assert all(min(record.encode_ms, record.decode_ms) > 0 for record in pixel_records[1:])

    def test_an_encoder_that_looks_ahead_has_its_bytes_by_frame(self, pixel_records):
        medium = pixel_records[5]
        assert medium.frame_is_key == (True, *[False] * 9)
        assert min(medium.frame_bytes) > 0
        assert medium.frame_bytes[0] == max(medium.frame_bytes)

    def test_distortion_of_pixels_falls_with_quality(self, pixel_records):
        for worse, better in (pixel_records[1:3], pixel_records[3:5]):
            assert 0 < better.distortion < worse.distortion

    def test_sizes_are_those_of_the_packets(self, pixel_records, video):
        coder = PixelCodec("x264", 8).coder(SIZE)
        pictures = read_clip(video, max_frames=10).pictures
        sent = sum(len(packed.data) for picture in pictures for packed in coder.encode(picture.image))
        assert pixel_records[4].kb_per_frame == pytest.approx(sent / 10 / 1e3, abs=1e-3)

    def test_each_codec_sees_the_decimated_clip_alone(self, network, video):
        _, record = evaluate(
            network, parse_codecs(["x264:crf=8"]), read_clip(video, every=5, max_frames=3), size=SIZE
        )
        coder = PixelCodec("x264", 8).coder(SIZE)
        pictures = [picture.image for picture in read_clip(video).pictures][:15:5]
        sent = sum(len(packed.data) for picture in pictures for packed in coder.encode(picture))
        assert record.kb_per_frame == pytest.approx(sent / 3 / 1e3, abs=1e-3)

    def test_stills_are_coded_by_themselves(self, network, folder):
        codecs = parse_codecs(["x264:crf=8", "x264-medium:crf=8", "jpeg:quality=95"])
        for record in evaluate(network, codecs, read_images(folder), size=96)[1:]:
            assert record.keyframes == record.frames == len(record.frame_bytes) == 4
            assert record.difference_kb is None


@pytest.fixture(scope="module")
def folder(tmp_path_factory, model, video):
    """Images of two shapes, whose labels are what the network is sure of: it scores full marks."""
    root = tmp_path_factory.mktemp("set")
    images, labels = root / "images" / "few", root / "labels" / "few"
    for path in (images, labels):
        path.mkdir(parents=True)
    for number, picture in enumerate(read_clip(video, every=5).pictures):
        image = picture.image if number % 2 else np.ascontiguousarray(picture.image[:, :60])
        cv2.imwrite(str(images / f"{number}.png"), image)
        truth = confident(scorable_detections(model, image, 96))
        size = np.array([image.shape[1], image.shape[0]])
        rows = [
            (class_id, *((box[:2] + box[2:]) / 2 / size), *((box[2:] - box[:2]) / size))
            for class_id, box in zip(truth.class_id, truth.boxes, strict=True)
        ]
        np.savetxt(labels / f"{number}.txt", rows, fmt="%d %.9f %.9f %.9f %.9f")
    return images


class TestStills:
    def test_labels_are_the_truth_for_map(self, network, folder):
        none, raw, coarse, temporal = evaluate(
            network, parse_codecs(["raw", "rle:bits=2", "rle:temporal=true"]), read_images(folder), size=96
        )
        assert (none.data, none.clip, none.frames) == ("few", None, 4)
        assert none.map == raw.map == pytest.approx(CEILING, abs=1e-3)
        assert none.map50 == raw.map50 == CEILING
        assert coarse.map < none.map
        assert coarse.agreement < none.agreement == CEILING
        assert temporal.keyframes == temporal.frames == 4

    def test_no_labels_no_map(self, network, folder, tmp_path):
        for path in folder.iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        (none,) = evaluate(network, [], read_images(tmp_path), size=96)
        assert none.map is none.map50 is None
        assert none.agreement == CEILING


def run(options: SimpleNamespace) -> None:
    run_evaluate(EvaluateSettings.load(vars(options)))


class TestCommand:
    @pytest.fixture
    def options(self, weights, video, tmp_path):
        return SimpleNamespace(
            model=str(weights),
            data=None,
            labels=None,
            clip=[str(video)],
            codec=["raw", "rle:bits=3", "rle:bits=4"],
            profile=None,
            split="4.m",
            size="64x96",
            max_frames=3,
            every=2,
            against=None,
            noise=None,
            repeat=None,
            threads=1,
            engine="auto",
            device="cpu",
            json=tmp_path / "out.json",
            html=tmp_path / "out.html",
        )

    def test_writes_a_page(self, options, video):
        run(options)
        page = options.html.read_text()
        assert video.name in page
        assert str(video.parent) not in page

    def test_labels_of_coco(self, options, folder, tmp_path):
        """What the network finds in its own classes, by other numbers, is all there is: full marks."""
        model = load_model(Path(options.model))
        images, annotations = [], []
        for number, path in enumerate(sorted(folder.iterdir())):
            images.append({"id": number, "file_name": path.name})
            truth = confident(scorable_detections(model, cv2.imread(str(path)), 96))
            for kind, box in zip(truth.class_id.tolist(), truth.boxes.tolist(), strict=True):
                corners = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
                annotations.append({"image_id": number, "category_id": 10 + kind, "bbox": corners})
        categories = [{"id": 10 + number, "name": name} for number, name in enumerate(model.names)]
        path = tmp_path / "labels.json"
        path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
        options.clip, options.data, options.labels = [], folder, path
        options.size, options.codec, options.max_frames = "96", ["raw", "jpeg:quality=20"], None
        run(options)
        written = json.loads(options.json.read_text())
        none, raw, jpeg = written["records"]
        assert none["map"] == raw["map"] == pytest.approx(CEILING, abs=1e-3)
        assert jpeg["map"] < none["map"]
        assert written["labels"] == "The network knows all 3 classes of the labels."

    def test_labels_need_images(self, options, tmp_path):
        options.labels = tmp_path / "labels.json"
        with pytest.raises(SettingsError, match="--data"):
            run(options)

    @pytest.mark.parametrize("flag", ["json", "html"])
    def test_says_at_once_that_it_cannot_write(self, options, flag, tmp_path):
        setattr(options, flag, tmp_path / "absent" / "out")
        with pytest.raises(SettingsError, match=r"there is no folder .*absent"):
            run(options)

    def test_by_default_it_measures_every_codec_there_is(self, options, capsys, monkeypatch):
        """Of each codec the first of its standard settings, to save time."""
        monkeypatch.setattr(pixels.features, "check", lambda feature: feature != "avif")
        firsts = {name: settings[:1] for name, settings in STANDARD_SETS.items()}
        monkeypatch.setattr("services.evaluation.codec_sets.STANDARD_SETS", firsts)
        options.codec, options.max_frames = [], 1
        run(options)
        measured = {record["codec"] for record in json.loads(options.json.read_text())["records"]}
        assert {"feature", "raw", "rle", "jpeg", "webp"} < measured
        assert "avif" not in measured
        error = " ".join(capsys.readouterr().err.split())
        assert "left out: avif cannot be measured here" in error

    def test_the_feature_codec_takes_the_profile_of_the_network(self, options, monkeypatch):
        """None is bundled for random weights: it does without, and says so once."""
        asked = []
        monkeypatch.setattr("services.profiles.log.warning", lambda text, **facts: asked.append(facts))
        options.codec = ["feature:quality=2", "feature:quality=9", "raw"]
        run(options)
        _, worse, better, _ = json.loads(options.json.read_text())["records"]
        assert [facts["split"] for facts in asked] == ["4.m"]
        assert "profile=none" in worse["setting"]
        assert worse["kb_per_frame"] < better["kb_per_frame"]
        assert worse["agreement"] < better["agreement"]
        assert (worse["keyframes"], worse["frames"]) == (1, 3)

    def test_a_profile_is_for_the_feature_codec(self, options, tmp_path):
        options.profile = tmp_path / "absent.profile"
        with pytest.raises(SettingsError, match="feature codec"):
            run(options)
        options.codec = ["raw", "feature"]
        with pytest.raises(SettingsError, match="cannot read"):
            run(options)

    def test_step_maps_change_what_follows_them(self, options, network, tmp_path, monkeypatch):
        """Random weights find all blocks alike: the maps say another thing, as far as they come from torch."""
        alike = sensitivity.pack_step_map
        monkeypatch.setattr(sensitivity, "pack_step_map", lambda energies: b"\xf0" * len(alike(energies)))
        options.profile = tmp_path / "random.profile"
        options.profile.write_bytes(make_profile(network.head("4.m", SIZE).layout).pack())
        options.codec, options.noise, options.max_frames = ["feature:quality=9", "raw"], 16.0, 4
        options.every = 1
        sizes = {}
        for feedback, lag in ((None, 1), (1, 1), (1, 2)):
            options.feedback, options.feedback_lag = feedback, lag
            run(options)
            written = json.loads(options.json.read_text())
            assert (written["feedback"], written["feedback_lag"]) == (feedback, lag if feedback else None)
            _, feature, _ = written["records"]
            sizes[feedback, lag] = feature["frame_bytes"]
        alone, at_once, later = sizes.values()
        assert alone[0] == at_once[0] == later[0]
        assert alone[1] == later[1] != at_once[1]
        assert alone[2:] != later[2:]

    def test_a_codec_asked_for_by_name_has_to_be_there(self, options, monkeypatch):
        monkeypatch.setattr(pixels.features, "check", lambda feature: feature != "avif")
        options.codec = ["avif"]
        with pytest.raises(MissingCodec, match="installed Pillow"):
            run(options)

    def test_writes_records_and_prints_a_table(self, options, network, video, capsys):
        run(options)
        text = options.json.read_text()
        written = json.loads(text)
        assert (written["model"], written["split"], written["size"]) == ("random", "4.m", "64x96")
        assert (written["weights"], written["every"]) == (network.weights_hash, 2)
        assert [record["codec"] for record in written["records"]] == ["none", "raw", "rle", "rle"]
        assert all(
            set(record) == {field.name for field in fields(EvaluationRecord)} for record in written["records"]
        )
        assert {record["frames"] for record in written["records"]} == {3}
        assert str(video.parent) not in text
        assert str(options.json.parent) not in text
        output = capsys.readouterr()
        assert "rle bits=3" in output.out
        assert "At an agreement of" in output.out
        assert video.name in output.err

    def test_engines_find_the_same(self, options):
        records = []
        for engine, ran in (("auto", "onnxruntime"), ("onnxruntime", "onnxruntime"), ("torch", "torch")):
            options.engine = engine
            run(options)
            written = json.loads(options.json.read_text())
            assert written["engine"] == ran
            assert set(written["versions"]) == {"splitcast", ran, "av", "pillow"}
            records.append([(record["agreement"], record["objects"]) for record in written["records"]])
        assert records[0] == records[1]
        np.testing.assert_allclose(records[1], records[2], rtol=0.01)

    def test_an_engine_that_knows_no_such_device_says_so(self, options):
        options.engine, options.device = "onnxruntime", "cuda"
        with pytest.raises(SettingsError, match="ONNX Runtime computes on the CPU"):
            run(options)

    def test_every_key_is_documented(self, options):
        run(options)
        written = json.loads(options.json.read_text())
        documented = (DOCS / "evaluate.md").read_text().partition("## JSON")[2]
        for key in (*written, *written["records"][0]):
            assert f"`{key}`" in documented

    def test_others_are_compared_with_the_codec_asked_for(self, options, folder, capsys, monkeypatch):
        """It need not be among those given; the page, the file and the table have its ratios."""
        monkeypatch.setattr("services.evaluation.intervals.FEWEST", 3)
        standard = {**STANDARD_SETS, "jpeg": [f"jpeg:quality={quality}" for quality in (10, 40, 95)]}
        monkeypatch.setattr("services.evaluation.codec_sets.STANDARD_SETS", standard)
        options.clip, options.data, options.size, options.every, options.max_frames = (
            [],
            folder,
            "96",
            1,
            None,
        )
        options.codec, options.against = ["webp:quality=10", "webp:quality=80"], "jpeg"
        run(options)
        written = json.loads(options.json.read_text())
        assert [record["codec"] for record in written["records"]] == [
            "none",
            "webp",
            "webp",
            "jpeg",
            "jpeg",
            "jpeg",
        ]
        (ratio, *_) = written["ratios"][folder.name]
        assert (ratio["codec"], ratio["against"], ratio["quality"]) == ("webp", "jpeg", "distortion")
        assert 0 < ratio["mean"]["low"] <= ratio["mean"]["ratio"] <= ratio["mean"]["high"]
        assert "bytes over those of jpeg at equal quality" in " ".join(capsys.readouterr().out.split())
        assert "Against jpeg" in options.html.read_text()

    def test_a_codec_to_compare_with_has_to_exist(self, options):
        options.against = "h266"
        with pytest.raises(BadCodecSpec, match="no codec 'h266'; there are"):
            run(options)

    def test_where_there_is_no_ratio_it_says_so(self, options, capsys):
        options.codec, options.against = ["webp:quality=10"], "webp:quality=10"
        run(options)
        assert "No ratio to webp:quality=10: no other codec" in capsys.readouterr().out

    def test_noise_is_told_in_the_file(self, options, folder):
        options.clip, options.data, options.size = [], folder, "96"
        options.noise, options.repeat, options.max_frames, options.every = 4.0, 3, 2, 1
        run(options)
        written = json.loads(options.json.read_text())
        assert (written["noise"], written["repeat"]) == (4, 3)
        none, raw = written["records"][:2]
        assert raw["frames"] == 6
        assert raw["distortion"] == none["distortion"] > 0

    def test_a_virtual_camera_is_judged_by_its_scene_without_noise(self, options):
        options.clip, options.every, options.codec = ["demo:scene=tripod,size=96x64,noise=8"], 1, ["raw"]
        distortions = {}
        for noise in (None, 0.0, 8.0):
            options.noise = noise
            run(options)
            _, raw = json.loads(options.json.read_text())["records"]
            assert (
                raw["clip"]
                == f"demo:scene=tripod,fps=15,size=96x64,noise={8 if noise is None else noise:g},seed=0"
            )
            distortions[noise] = raw["distortion"]
        assert distortions[None] == distortions[8.0] > distortions[0.0] == 0

    def test_a_virtual_camera_needs_a_number_of_frames(self, options):
        options.clip, options.max_frames = ["demo:scene=bus"], None
        with pytest.raises(SettingsError, match=r"never ends.*--max-frames"):
            run(options)

    def test_needs_a_source(self, options):
        options.clip = []
        with pytest.raises(SettingsError, match="--data"):
            run(options)

    @pytest.mark.parametrize("flag", ["every", "max_frames", "threads"])
    def test_numbers_start_at_one(self, options, flag):
        setattr(options, flag, 0)
        with pytest.raises(SettingsError, match=f"--{flag.replace('_', '-')}: .*greater than or equal to 1"):
            run(options)


RLE_2_TO_4 = [f"rle:bits={bits}" for bits in (2, 3, 4)]


@pytest.fixture(scope="module")
def yolov5n(yolov5n_weights):
    return open_network(yolov5n_weights)


@pytest.mark.shared
def test_real_pictures(yolov5n, shared_data):
    """Measured: 52 objects; mAP .359; agreement .571, .926 and .979 at 2, 3 and 4 bits."""
    dataset = read_images(shared_data / "coco" / "images" / "val2017", max_frames=12)
    none, raw, two, three, four = evaluate(yolov5n, parse_codecs(["raw", *RLE_2_TO_4]), dataset)
    assert none.objects > 40
    assert none.map == raw.map == pytest.approx(0.36, abs=0.02)
    assert raw.agreement == none.agreement == CEILING
    assert two.agreement < 0.75 < three.agreement < four.agreement
    assert four.agreement > 0.95
    assert two.map < none.map - 0.1 < four.map
    assert two.bits_per_coefficient < 2 < three.bits_per_coefficient < 4 < four.bits_per_coefficient < 5


@pytest.mark.shared
def test_a_real_clip(yolov5n, shared_data):
    """Measured on every 60th frame: 17 people; agreement .899, .995 and .995 at 2, 3 and 4 bits."""
    path = shared_data / "clips" / "one-by-one-person-detection.mp4"
    none, two, three, four = evaluate(yolov5n, parse_codecs(RLE_2_TO_4), read_clip(path, every=60))
    assert (none.clip, none.frames) == (path.name, 24)
    assert none.objects > 12
    assert two.agreement < 0.95 < three.agreement <= four.agreement


@pytest.mark.shared
def test_prediction_pays_on_a_fixed_camera(yolov5n, shared_data):
    path = shared_data / "clips" / "one-by-one-person-detection.mp4"
    codecs = parse_codecs(["rle:bits=4", "rle:bits=4,temporal=true"])
    _, intra, temporal = evaluate(yolov5n, codecs, read_clip(path, max_frames=20))
    assert temporal.keyframes == 1
    assert temporal.kb_per_frame < intra.kb_per_frame / 2


@pytest.mark.shared
def test_pixels_of_real_pictures(yolov5n, shared_data):
    """Measured, kB and agreement: JPEG 40:.841, 147:.969; AVIF 58:.944; x264 105:.983; SVT-AV1 80:.961."""
    dataset = read_images(shared_data / "coco" / "images" / "val2017", max_frames=12)
    texts = ["jpeg:quality=50", "jpeg:quality=95", "avif:quality=70", "x264:crf=18", "svt-av1:crf=35"]
    _, worse, better, avif, x264, svt = evaluate(yolov5n, parse_codecs(texts), dataset)
    assert worse.agreement < 0.88 < avif.agreement
    assert min(better.agreement, x264.agreement, svt.agreement) > 0.9
    assert max(avif.kb_per_frame, x264.kb_per_frame, svt.kb_per_frame) < better.kb_per_frame


@pytest.mark.shared
def test_video_at_its_best_is_next_to_the_original(yolov5n, shared_data):
    """Measured, kB and agreement: 4.0:.829 and 34:.970."""
    clip = read_clip(shared_data / "clips" / "vehicles.mp4", max_frames=12)
    _, coarse, fine = evaluate(yolov5n, parse_codecs(["x264:crf=27", "x264:crf=2"]), clip)
    assert coarse.kb_per_frame * 4 < fine.kb_per_frame
    assert coarse.agreement + 0.03 < fine.agreement
    assert fine.agreement > 0.93
