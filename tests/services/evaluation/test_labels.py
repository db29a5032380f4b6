"""Labels of COCO's files and YOLO's folders, and their classes in those of a network."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from services.evaluation.dataset import read_images
from services.evaluation.labels import ClassMap, CocoLabels, YoloLabels
from stream.detections import Detections
from stream.errors import SourceError

COCO = {
    "info": {"description": "left alone"},
    "images": [
        {"id": 7, "file_name": "a.png", "width": 96, "height": 64},
        {"id": 9, "file_name": "folder/b.png"},
    ],
    "categories": [{"id": 1, "name": "person"}, {"id": 90, "name": "toothbrush"}],
    "annotations": [
        {"image_id": 7, "category_id": 90, "bbox": [10, 20, 30.5, 4], "iscrowd": 0, "segmentation": [[1, 2]]},
        {"image_id": 7, "category_id": 1, "bbox": [0, 0, 96, 64], "iscrowd": 1},
        {"image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4]},
    ],
}


@pytest.fixture
def images(tmp_path):
    """Two images, without labels yet."""
    folder = tmp_path / "set" / "images" / "few"
    folder.mkdir(parents=True)
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(folder / name), np.zeros((64, 96, 3), np.uint8))
    return folder


@pytest.fixture
def coco(tmp_path):
    def write(**parts):
        path = tmp_path / "instances.json"
        path.write_text(json.dumps(COCO | parts))
        return path

    return write


class TestCoco:
    def test_objects_and_crowds_of_an_image(self, images, coco):
        dataset = read_images(images, labels=coco())
        first, second = dataset.pictures
        assert first.labels.boxes.tolist() == [[10, 20, 40.5, 24], [1, 2, 4, 6]]
        assert first.labels.class_id.tolist() == [90, 1]
        assert (first.crowd.boxes.tolist(), first.crowd.class_id.tolist()) == ([[0, 0, 96, 64]], [1])
        assert (len(second.labels), len(second.crowd)) == (0, 0)
        assert dataset.classes == {1: "person", 90: "toothbrush"}

    def test_an_image_that_is_not_listed(self, images, coco):
        dataset = read_images(images, labels=coco(images=COCO["images"][:1]))
        with pytest.raises(SourceError, match=r"does not list b\.png"):
            list(dataset.pictures)

    @pytest.mark.parametrize(
        ("parts", "reason"),
        [
            ({"images": None}, "images"),
            ({"images": [{"id": "seven"}]}, "images.0"),
            ({"annotations": [{"image_id": 7, "category_id": 1, "bbox": [1, 2, 3]}]}, "annotations.0.bbox"),
            ({"annotations": [{"image_id": 7, "category_id": 1, "bbox": [1, 2, 3, float("nan")]}]}, "bbox.3"),
            (
                {"annotations": [{"image_id": 8, "category_id": 1, "bbox": [1, 2, 3, 4]}]},
                "image 8, category 1",
            ),
            (
                {"annotations": [{"image_id": 7, "category_id": 2, "bbox": [1, 2, 3, 4]}]},
                "image 7, category 2",
            ),
        ],
    )
    def test_refuses_other_files(self, parts, reason, coco):
        with pytest.raises(SourceError, match=reason):
            CocoLabels(coco(**parts))

    @pytest.mark.parametrize("text", ["", "[]", "{", '{"images": []}'])
    def test_refuses_what_is_no_such_file(self, text, tmp_path):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(SourceError, match="does not hold COCO's labels"):
            CocoLabels(tmp_path / "a.json")

    def test_refuses_what_is_not_there(self, tmp_path):
        with pytest.raises(SourceError, match="cannot read"):
            CocoLabels(tmp_path / "absent.json")


class TestYolo:
    @pytest.fixture
    def labels(self, images):
        folder = images.parents[1] / "labels" / "few"
        folder.mkdir(parents=True)
        (folder / "a.txt").write_text("1 0.5 0.5 0.25 0.5\n")
        return folder

    @pytest.mark.parametrize("text", ["names: [cat, dog]", "names: {0: cat, 1: dog}"])
    @pytest.mark.parametrize("up", [1, 2])
    def test_a_data_yaml_names_the_classes(self, text, up, images, labels):
        (images.parents[up] / "data.yaml").write_text(text)
        assert read_images(images).classes == {0: "cat", 1: "dog"}

    def test_without_one_nobody_does(self, images, labels):
        assert read_images(images).classes is None
        assert YoloLabels.beside(images).of(images / "a.png", 64, 96).crowd is None

    @pytest.mark.parametrize("text", ["", "nc: 3", "names: 3", "names: {a: b}", "[", "- 1"])
    def test_a_data_yaml_without_names(self, text, images, labels):
        (images.parents[1] / "data.yaml").write_text(text)
        with pytest.raises(SourceError, match="does not tell the names"):
            read_images(images)

    def test_a_figure_that_is_none(self, images, labels):
        (labels / "a.txt").write_text("0 nan 0.5 0.5 0.5")
        with pytest.raises(SourceError, match="rows of class"):
            list(read_images(images).pictures)

    def test_a_folder_without_labels(self, images, tmp_path):
        assert read_images(images).classes is None
        assert [picture.labels for picture in read_images(images).pictures] == [None, None]
        assert YoloLabels.beside(tmp_path) is None


def objects(*classes):
    boxes = np.arange(4 * len(classes), dtype=np.float32).reshape(-1, 4)
    return Detections(boxes, np.ones(len(classes), np.float32), np.array(classes, np.int64))


class TestClasses:
    def test_names_join_labels_and_network(self):
        classes = ClassMap({1: "person", 3: "car", 90: "toothbrush"}, ["toothbrush", "person"])
        found = classes.translate(objects(90, 3, 1, 90))
        assert found.class_id.tolist() == [0, 1, 0]
        assert found.boxes[:, 0].tolist() == [0, 8, 12]
        assert str(classes).startswith("The network knows 2 of the labels' 3 classes")

    def test_labels_without_names_are_cocos_for_a_network_of_its_classes(self):
        classes = ClassMap(None, ["person", "dog"])
        assert classes.translate(objects(16, 0, 5)).class_id.tolist() == [1, 0]
        assert "2 of the labels' 80" in str(classes)

    def test_labels_without_names_are_those_of_any_other_network(self):
        classes = ClassMap(None, ["person", "unicorn"])
        assert classes.translate(objects(1, 0)).class_id.tolist() == [1, 0]
        assert "Nobody names" in str(classes)

    def test_all_classes_known(self):
        assert str(ClassMap({0: "a", 1: "b"}, ["b", "a"])) == "The network knows all 2 classes of the labels."

    @pytest.mark.parametrize("names", [None, {0: "a", 1: "b"}])
    def test_a_class_that_the_labels_should_not_have(self, names):
        with pytest.raises(SourceError, match="hold class 2"):
            ClassMap(names, ["a", "b"]).translate(objects(0, 2))

    def test_nothing_in_common(self):
        with pytest.raises(SourceError, match=r"know cat, dog and the network person, car, bus, \.\.\."):
            ClassMap({0: "cat", 1: "dog"}, ["person", "car", "bus", "truck"])
