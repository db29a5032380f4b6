"""Trains the embedded demo network from random initialisation, by labels and by a teacher's outputs and features."""

from __future__ import annotations

import copy
from argparse import ArgumentParser, Namespace
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from services.training.losses import feature_loss, head_logits, initialize, label_loss, output_loss
from services.training.pictures import CLASSES, COCO_IDS, Batch, Batches, clips, coco, photographs
from stream.graph import INPUT, run
from stream.model import Model, Trainable, load_model, trainable
from stream.safe_checkpoint import write_checkpoint
from stream.yolov5 import AnchorDetect

FEATURES = ("4", "6", "9", "17", "20", "23")  # layers that are taught
PEAK_RATE, LAST_RATE, WARM_UP = 2e-3, 2e-5, 200
WEIGHT_DECAY = 0.01
AVERAGE = 0.999  # of the weights over the steps
EXPORT_EVERY = 500


def main() -> None:
    parser = ArgumentParser(prog="python -m services.training", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with coco/ and clips/")
    parser.add_argument("--teacher", type=Path, required=True, help="COCO-pretrained yolov5n checkpoint")
    parser.add_argument("--output", type=Path, default=Path("stream/weights/demo.safetensors"))
    parser.add_argument("--steps", type=int, default=9000, help="batches (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    train(parser.parse_args())


def train(options: Namespace) -> None:
    torch.set_num_threads(options.threads)
    examples = coco(options.data / "coco/images/train2017") + clips(options.data / "clips")
    batches = Batches(examples, photographs(), options.steps, options.seed)
    loader = DataLoader(batches, batch_size=None, num_workers=1, prefetch_factor=4)
    teacher = Teacher(load_model(options.teacher))
    student = trainable("yolov5n", CLASSES)
    head = student.graph.nodes[-1].module
    assert isinstance(head, AnchorDetect)
    initialize(student.modules, head, options.seed)
    student.modules.train().to(memory_format=torch.channels_last)
    average = copy.deepcopy(student.modules)
    decayed = [p for p in student.modules.parameters() if p.ndim > 1]
    others = [p for p in student.modules.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}],
        lr=PEAK_RATE,
    )
    schedule = torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, 0.05, total_iters=WARM_UP),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(options.steps - WARM_UP, 1), LAST_RATE),
        ],
        [WARM_UP],
    )
    shown: dict[str, float] = {}
    with tqdm(loader, total=options.steps, unit="batch", mininterval=10) as progress:
        for step, batch in enumerate(progress, 1):
            losses = step_losses(student, head, teacher, batch)
            optimizer.zero_grad()
            torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(student.modules.parameters(), 10.0)
            optimizer.step()
            schedule.step()
            follow(average, student.modules, min(AVERAGE, step / (step + 10)))
            for name, loss in losses.items():
                value = loss.item()
                shown[name] = 0.98 * shown.get(name, value) + 0.02 * value
            progress.set_postfix({name: f"{mean:.3f}" for name, mean in shown.items()}, refresh=False)
            if step % EXPORT_EVERY == 0 or step == options.steps:
                write_checkpoint(options.output, "yolov5n", CLASSES, average.state_dict())


def step_losses(
    student: Trainable, head: AnchorDetect, teacher: Teacher, batch: Batch
) -> dict[str, torch.Tensor]:
    """The losses of one batch, each a scalar, ready to be added."""
    pictures = batch.images.float().div_(255).to(memory_format=torch.channels_last)
    levels = student.graph.nodes[-1].inputs
    with torch.autocast("cpu", torch.bfloat16):
        features = run(student.graph.nodes[:-1], {INPUT: pictures}, FEATURES)
    logits = head_logits(head, [features[name].float() for name in levels])
    taught = batch.distilled
    expected, wanted = teacher(pictures[taught])
    return {
        "label": label_loss(head, logits, batch.targets, batch.labelled),
        "output": output_loss([level[taught] for level in logits], wanted),
        "feature": 4.0 * feature_loss({name: value[taught] for name, value in features.items()}, expected),
    }


class Teacher:
    """A network of the same layers, which knows COCO's classes."""

    def __init__(self, model: Model) -> None:
        head = model.graph.nodes[-1].module
        assert isinstance(head, AnchorDetect)
        self._model, self._head = model, head
        self._columns = [0, 1, 2, 3, 4, *(5 + kind for kind in COCO_IDS)]

    @torch.no_grad()
    def __call__(self, pictures: torch.Tensor) -> tuple[dict[str, torch.Tensor], list[torch.Tensor]]:
        """Features of the taught layers, and the head's logits for the demo's classes."""
        with torch.autocast("cpu", torch.bfloat16):
            features = run(self._model.graph.nodes[:-1], {INPUT: pictures}, FEATURES)
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
