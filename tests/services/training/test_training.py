"""The demo network is trained on views whose boxes are right, with targets where YOLOv5 puts them, reproducibly."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from services.training import pictures
from services.training.__main__ import TrainSettings, train
from services.training.losses import assign, head_logits, initialize, label_loss, output_loss, range_loss
from services.training.pictures import CLASSES, COCO_IDS, Batches, Example, demo_boxes, photographs
from stream.detections import Detections
from stream.letterbox import Letterbox
from stream.network.graph import INPUT
from stream.torch_network.graph import run
from stream.torch_network.model import load_model, trainable
from stream.torch_network.nms import detect
from tests.services.clips import write_video
from tests.stream.network import legacy

STRIDE = 8.0
ANCHORS = torch.tensor([[2.0, 3.0], [8.0, 8.0]])  # in cells


def square(boxes: list[tuple[float, ...]] | None) -> Example:
    """A black picture with a white square where each box is."""
    image = np.zeros((240, 320, 3), np.uint8)
    for _, left, top, right, bottom in boxes or ():
        image[int(top) : int(bottom), int(left) : int(right)] = 255
    return Example(image, None if boxes is None else np.array(boxes, np.float32).reshape(-1, 5))


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Views without disturbances."""
    monkeypatch.setattr(pictures, "disturb", lambda image, rng: image)


@pytest.mark.usefixtures("plain")
def test_boxes_follow_their_objects():
    example = square([(2, 100, 60, 180, 140)])
    batches = Batches([example], [example], range(40), seed=0)
    seen = 0
    for index in range(len(batches)):
        batch = batches[index]
        for image, box in ((int(row[0]), row[2:]) for row in batch.targets):
            left, top, right, bottom = box.round().int().tolist()
            bright = (batch.images[image, 0] > 200).float()
            inside = bright[max(top, 0) : bottom, max(left, 0) : right]
            assert inside.mean() > 0.75  # a little turned, so its corners are dark
            seen += 1
        # What is bright lies in a box, but for slivers of objects that a view hardly shows.
        covered = torch.zeros_like(batch.images[:, 0], dtype=torch.bool)
        for row in batch.targets.round().int():
            covered[row[0], row[3] : row[5], row[2] : row[4]] = True
        bright = batch.images[:, 0] > 200
        assert (bright & ~covered).float().mean() < 0.05
    assert seen > 100


def test_batches_are_the_same_for_the_same_seed():
    examples = [square([(0, 10, 10, 90, 90)]), square(None)]
    first, again = (Batches(examples, examples[:1], range(4), seed=3) for _ in range(2))
    other = Batches(examples, examples[:1], range(4), seed=4)
    for index in range(4):
        assert torch.equal(first[index].images, again[index].images)
        assert torch.equal(first[index].targets, again[index].targets)
        assert not torch.equal(first[index].images, other[index].images)


def test_photographs_are_labeled_but_not_distilled():
    batch = Batches([square(None)], photographs(), range(2), seed=0)[0]
    own = batch.labeled.tolist().count(True)
    assert own == 3
    assert batch.labeled.tolist() == (~batch.distilled).tolist()
    assert set(batch.targets[:, 0].int().tolist()) <= {0, 1, 2}
    assert len(batch.targets) > 0


def test_labels_keep_the_demos_classes_under_their_own_numbers():
    labels = Detections(
        np.array([[1, 2, 3, 4], [5, 6, 7, 8], [9, 9, 10, 10]], np.float32),
        np.ones(3, np.float32),
        np.array([COCO_IDS[4], 50, 0]),
    )
    rows = demo_boxes(labels)
    assert rows is not None
    assert rows.tolist() == [[CLASSES.index("bus"), 1, 2, 3, 4], [CLASSES.index("person"), 9, 9, 10, 10]]
    assert demo_boxes(None) is None


def slow_assign(target: list[float], width: int, height: int) -> set[tuple[int, int, int]]:
    """YOLOv5's rule for one object, cell by cell: (anchor, row, column)."""
    _, _, left, top, right, bottom = target
    x, y = (left + right) / 2 / STRIDE, (top + bottom) / 2 / STRIDE
    answers = set()
    for number, anchor in enumerate(ANCHORS.tolist()):
        sides = ((right - left) / STRIDE / anchor[0], (bottom - top) / STRIDE / anchor[1])
        if max(max(side, 1 / side) for side in sides) >= 4:
            continue
        for row in range(height):
            for column in range(width):
                near_x, near_y = abs(x - (column + 0.5)), abs(y - (row + 0.5))
                own = int(x) == column and int(y) == row
                beside = int(y) == row and near_x < 1 and int(x) != column
                above = int(x) == column and near_y < 1 and int(y) != row
                if own or beside or above:
                    answers.add((number, row, column))
    return answers


def test_targets_go_where_yolov5_puts_them():
    rng = np.random.default_rng(0)
    for _ in range(50):
        left, top = rng.uniform(0, 100), rng.uniform(0, 60)
        target = [0, 3, left, top, left + rng.uniform(6, 60), top + rng.uniform(6, 60)]
        target[4], target[5] = min(target[4], 127.9), min(target[5], 95.9)
        image, anchor, row, column, kinds, boxes = assign(torch.tensor([target]), ANCHORS, STRIDE, (12, 16))
        got = set(zip(anchor.tolist(), row.tolist(), column.tolist(), strict=True))
        assert got == slow_assign(target, 16, 12)
        assert len(got) == len(anchor)
        assert set(kinds.tolist()) <= {3}
        assert set(image.tolist()) <= {0}
        for r, c, box in zip(row.tolist(), column.tolist(), boxes.tolist(), strict=True):
            center = (box[0] + c) * STRIDE, (box[1] + r) * STRIDE
            assert center == pytest.approx(
                ((target[2] + target[4]) / 2, (target[3] + target[5]) / 2), abs=1e-3
            )
            assert box[2:] == pytest.approx(
                [(target[4] - target[2]) / STRIDE, (target[5] - target[3]) / STRIDE], abs=1e-4
            )


def test_the_losses_teach_a_network_one_picture():
    """What the loss calls right is what inference decodes: the box that was trained is the box that is found."""
    torch.manual_seed(0)
    student = trainable("yolov5n", CLASSES)
    head = student.graph.nodes[-1].module
    initialize(student.modules, head, seed=0)
    student.modules.train()
    picture = np.zeros((96, 128, 3), np.uint8)
    cv2.rectangle(picture, (40, 30), (90, 80), (255, 255, 255), -1)
    batch = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
    targets = torch.tensor([[0, 4, 40, 30, 90, 80]], dtype=torch.float32)
    optimizer = torch.optim.AdamW(student.modules.parameters(), lr=2e-3)
    levels = student.graph.nodes[-1].inputs
    for _ in range(50):
        features = run(student.graph.nodes[:-1], {INPUT: batch}, levels)
        loss = label_loss(head, head_logits(head, list(features.values())), targets, torch.tensor([True]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        prediction = student.graph.forward(batch)
    found = detect(prediction, Letterbox((96, 128), (96, 128)))
    assert found.class_id.tolist() == [4]
    np.testing.assert_allclose(found.boxes[0], [40, 30, 90, 80], atol=8)


def test_nothing_is_lost_where_the_teacher_is_matched():
    teacher = [torch.randn(2, 3, 4, 5, 12, generator=torch.Generator().manual_seed(0)) for _ in range(3)]
    ours = [level.clone().requires_grad_() for level in teacher]
    output_loss(ours, teacher).backward()
    # The distance of boxes has an edge there; objectness and classes do not.
    assert all(float(level.grad[..., 4:].abs().max()) < 1e-6 for level in ours)
    for channel in range(12):
        moved = [level.clone() for level in teacher]
        for level in moved:
            level[..., channel] += 0.5
        assert output_loss(moved, teacher) > output_loss(teacher, teacher)


def test_only_what_is_beyond_the_usual_range_is_held_back():
    tensor = torch.tensor([0.0, 5.9, -6.5, 60.0]).view(1, 1, 2, 2).requires_grad_()
    loss = range_loss([tensor, torch.zeros(1, 3, 4, 4)])
    loss.backward()
    assert loss.item() == pytest.approx((0.5 + 54) / 1000)
    assert tensor.grad.flatten().sign().tolist() == [0, 0, -1, 1]


@pytest.fixture
def data(tmp_path):
    """A folder with one labeled picture and one clip."""
    images = tmp_path / "coco/images/train2017"
    labels = tmp_path / "coco/labels/train2017"
    images.mkdir(parents=True)
    labels.mkdir(parents=True)
    cv2.imwrite(str(images / "a.jpg"), square([(0, 40, 40, 200, 200)]).image)
    (labels / "a.txt").write_text("0 0.375 0.5 0.5 0.667\n")
    (tmp_path / "clips").mkdir()
    write_video(tmp_path / "clips/b.avi", 3).rename(tmp_path / "clips/b.mp4")
    return tmp_path


def test_trains_from_a_folder_to_a_file_that_loads(data, tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "CANVASES", (((64, 64), 1, 3), ((64, 96), 1, 1)))
    teacher = legacy.save(legacy.Model(legacy.description("n", 80)), tmp_path / "teacher.pt")
    hashes = []
    for seed in (0, 0, 1):
        output = tmp_path / f"demo-{len(hashes)}.safetensors"
        train(TrainSettings(data=data, teacher=teacher, output=output, steps=4, seed=seed))
        assert output.stat().st_size <= 4e6
        model = load_model(output)
        assert model.names == CLASSES
        hashes.append(model.weights_hash)
    assert hashes[0] == hashes[1] != hashes[2]
    finish = tmp_path / "demo-0.safetensors"
    train(TrainSettings(data=data, teacher=teacher, output=output, steps=4, finish=finish))
    assert load_model(output).weights_hash not in hashes
