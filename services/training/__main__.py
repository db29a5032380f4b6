"""Trains the embedded demo network from random initialization, by labels and by a teacher's outputs and features."""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from pathlib import Path

import torch
from pydantic import Field
from torch.utils.data import DataLoader
from tqdm import tqdm

from services.command_settings import CommandSettings
from services.settings import Count, Threads
from services.training.losses import (
    feature_loss,
    head_logits,
    initialize,
    label_loss,
    output_loss,
    range_loss,
)
from services.training.pictures import CLASSES, COCO_IDS, Batch, Batches, clips, coco, photographs
from stream.network.download import BUNDLED_WEIGHTS
from stream.network.graph import INPUT
from stream.network.names import DEMO, SAFETENSORS
from stream.network.safetensors_file import read_safe_checkpoint, write_checkpoint
from stream.torch_network.anchor_head import AnchorDetect
from stream.torch_network.graph import ModuleGraph, ModuleNode, run
from stream.torch_network.model import Model, Trainable, load_model, trainable

# What each layer that is taught by itself reads. The teacher has the same layers; those left out only join others.
BLOCKS = {
    "0": (INPUT,),
    "1": ("0",),
    "2": ("1",),
    "3": ("2",),
    "4": ("3",),
    "5": ("4",),
    "6": ("5",),
    "7": ("6",),
    "8": ("7",),
    "9": ("8",),
    "10": ("9",),
    "13": ("10", "6"),
    "14": ("13",),
    "17": ("14", "4"),
    "18": ("17",),
    "20": ("18", "14"),
    "21": ("20",),
    "23": ("21", "10"),
}
SHALLOW = ("0", "1", "2", "3", "4")  # these see so many places that a quarter of a batch says enough
CROSSING = ("4.cv2", "4.m")  # what a camera sends
TOGETHER = ("2", "4", "6", "9", "13", "17", "20", "23")  # layers that the whole network has to match


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the training, with an optimizer of its own."""

    share: float  # of the steps
    apart: bool  # each layer learns by itself, or the whole network
    rate: float  # peak of the learning rate
    feature: float  # weights of the losses
    output: float
    label: float
    range: float


STAGES = (
    Stage(0.42, apart=True, rate=4e-3, feature=1.0, output=0.1, label=0.0, range=0.0),
    Stage(0.14, apart=False, rate=1e-3, feature=1.0, output=0.1, label=0.1, range=1.0),
    Stage(0.44, apart=False, rate=1e-3, feature=0.5, output=0.1, label=0.5, range=1.0),
)
LAST_RATE = 0.01  # of the peak
WARM_UP = 100
WEIGHT_DECAY = 0.01
AVERAGE = 0.998  # of the weights over the steps
EXPORT_EVERY = 250


class TrainSettings(CommandSettings):
    """Settings of `python -m services.training`."""

    data: Path = Field(title="FOLDER", description="folder with coco/ and clips/")
    teacher: Path = Field(title="FILE", description="COCO-pretrained yolov5n checkpoint")
    output: Path = Field(
        BUNDLED_WEIGHTS / f"{DEMO}{SAFETENSORS}", title="FILE", description="write the weights there"
    )
    steps: Count = Field(5000, description="batches")
    seed: int = Field(0, description="of all that is random")
    threads: Threads = Field(1, description="torch threads")
    finish: Path | None = Field(None, title="FILE", description="only the last stage, from these weights")


def main() -> None:
    train(TrainSettings.parse(sys.argv[1:], "python -m services.training", __doc__ or ""))


def train(settings: TrainSettings) -> None:
    torch.set_num_threads(settings.threads)
    examples = coco(settings.data / "coco/images/train2017") + clips(settings.data / "clips")
    teacher = Teacher(load_model(settings.teacher))
    student = trainable("yolov5n", CLASSES)
    initialize(student.modules, detection_head(student.graph), settings.seed)
    if settings.finish:
        state = read_safe_checkpoint(settings.finish).state
        student.modules.load_state_dict({name: torch.tensor(values) for name, values in state.items()})
    student.modules.train().to(memory_format=torch.channels_last)
    ends = [round(settings.steps * share) for share in accumulate(stage.share for stage in STAGES)]
    for stage, first, end in zip(STAGES, (0, *ends), ends, strict=False):
        if settings.finish and stage is not STAGES[-1]:
            continue
        batches = Batches(examples, photographs(), range(first, end), settings.seed)
        train_stage(stage, student, teacher, batches, settings.output)


def train_stage(stage: Stage, student: Trainable, teacher: Teacher, batches: Batches, output: Path) -> None:
    """Train over the batches; write and leave behind the average of the last weights."""
    loader = DataLoader(batches, batch_size=None, num_workers=1, prefetch_factor=4)
    average = copy.deepcopy(student.modules)
    optimizer = torch.optim.AdamW(student.modules.parameters(), lr=1.0, weight_decay=WEIGHT_DECAY)
    rates = course(len(batches), stage.rate)
    shown: dict[str, float] = {}
    with tqdm(loader, total=len(batches), unit="batch", mininterval=10) as progress:
        for step, batch in enumerate(progress, 1):
            parts = (losses_apart if stage.apart else losses_together)(student, teacher, batch)
            for group in optimizer.param_groups:
                group["lr"] = rates[step - 1]
            optimizer.zero_grad()
            torch.stack([getattr(stage, name) * loss for name, loss in parts.items()]).sum().backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(student.modules.parameters(), 100.0)
            optimizer.step()
            follow(average, student.modules, min(AVERAGE, step / (step + 10)))
            for name, loss in parts.items():
                value = loss.item()
                shown[name] = 0.98 * shown.get(name, value) + 0.02 * value
            progress.set_postfix({name: f"{mean:.3f}" for name, mean in shown.items()}, refresh=False)
            if step % EXPORT_EVERY == 0 or step == len(batches):
                state = {name: tensor.numpy() for name, tensor in average.state_dict().items()}
                write_checkpoint(output, "yolov5n", CLASSES, state)
    student.modules.load_state_dict(average.state_dict())


def course(steps: int, peak: float) -> list[float]:
    """Learning rate of each step, at most `peak`: up in a line, down in a cosine."""
    return [
        peak
        * min(1.0, (step + 1) / WARM_UP)
        * (LAST_RATE + (1 - LAST_RATE) * (1 + math.cos(math.pi * step / steps)) / 2)
        for step in range(steps)
    ]


def losses_apart(student: Trainable, teacher: Teacher, batch: Batch) -> dict[str, torch.Tensor]:
    """Each layer reads the teacher's features, so that none waits until those before it are good."""
    pictures = as_input(batch.images)
    expected, target_logits = teacher(pictures, tuple(BLOCKS))
    known = {INPUT: pictures, **expected}
    ours: dict[str, torch.Tensor] = {}
    with torch.autocast("cpu", torch.bfloat16):
        for makes, reads in BLOCKS.items():
            views = slice(0, max(2, len(pictures) // 4) if makes in SHALLOW else len(pictures))
            ours |= run(block(student.graph, makes), {name: known[name][views] for name in reads}, (makes,))
    levels = [expected[name].float() for name in student.graph.nodes[-1].inputs]
    logits = head_logits(detection_head(student.graph), levels)
    return {"feature": feature_loss(ours, expected), "output": output_loss(logits, target_logits)}


def losses_together(student: Trainable, teacher: Teacher, batch: Batch) -> dict[str, torch.Tensor]:
    """The whole network: the teacher's features and outputs, and what is better known from labels."""
    pictures = as_input(batch.images)
    with torch.autocast("cpu", torch.bfloat16):
        features = run(student.graph.nodes[:-1], {INPUT: pictures}, (*TOGETHER, *CROSSING))
    crossing = [features.pop(name) for name in CROSSING]
    head = detection_head(student.graph)
    logits = head_logits(head, [features[name].float() for name in student.graph.nodes[-1].inputs])
    taught = batch.distilled
    expected, target_logits = teacher(pictures[taught], TOGETHER)
    return {
        "feature": feature_loss({name: value[taught] for name, value in features.items()}, expected),
        "output": output_loss([level[taught] for level in logits], target_logits),
        "label": label_loss(head, logits, batch.targets, batch.labeled),
        "range": range_loss(crossing),
    }


def detection_head(graph: ModuleGraph) -> AnchorDetect:
    """The last layer."""
    head = graph.nodes[-1].module
    assert isinstance(head, AnchorDetect)
    return head


def as_input(images: torch.Tensor) -> torch.Tensor:
    """Pictures uint8 (B, 3, H, W), RGB, as the network reads them: float32, 0 to 1."""
    return images.float().div_(255).to(memory_format=torch.channels_last)


@cache
def block(graph: ModuleGraph, makes: str) -> tuple[ModuleNode, ...]:
    """The nodes of one of BLOCKS."""
    names = [node.name for node in graph.nodes]
    layers = list(BLOCKS)
    before = layers.index(makes) - 1
    first = names.index(layers[before]) + 1 if before >= 0 else 0
    return graph.nodes[first : names.index(makes) + 1]


class Teacher:
    """A network of the same layers, which knows COCO's classes."""

    def __init__(self, model: Model) -> None:
        self._model, self._head = model, detection_head(model.graph)
        self._columns = [0, 1, 2, 3, 4, *(5 + kind for kind in COCO_IDS)]

    @torch.no_grad()
    def __call__(
        self, pictures: torch.Tensor, layers: Sequence[str]
    ) -> tuple[dict[str, torch.Tensor], list[torch.Tensor]]:
        """Features of those layers, which include all that the head reads, and its logits for the demo's classes."""
        with torch.autocast("cpu", torch.bfloat16):
            features = run(self._model.graph.nodes[:-1], {INPUT: pictures}, layers)
        levels = [features[name].float() for name in self._model.graph.nodes[-1].inputs]
        return features, [level[..., self._columns] for level in head_logits(self._head, levels)]


@torch.no_grad()
def follow(average: torch.nn.Module, modules: torch.nn.Module, keep: float) -> None:
    """Moves the averaged weights, and the statistics of batch normalization, a step towards the trained ones."""
    for ours, theirs in zip(average.state_dict().values(), modules.state_dict().values(), strict=True):
        if ours.is_floating_point():
            ours.lerp_(theirs, 1 - keep)


if __name__ == "__main__":
    main()
