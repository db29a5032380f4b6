"""Every experiment of the study, by name, in the order of the paper and then beyond it."""

from __future__ import annotations

from collections.abc import Mapping

from services.study.experiment import Experiment
from services.study.experiments.differences import differential, temporal
from services.study.experiments.distribution import figure1, figure2, figure3
from services.study.experiments.frequency import fft_study
from services.study.experiments.loss import loss
from services.study.experiments.lossless import figure7
from services.study.experiments.quantization import figure5, figure6
from services.study.experiments.redundancy import redundancy
from services.study.experiments.relevance import figure4
from services.study.experiments.splits import split
from services.study.experiments.tables import table1, table2

EXPERIMENTS: Mapping[str, Experiment] = {
    experiment.name: experiment
    for experiment in (
        table1,
        table2,
        figure1,
        figure2,
        figure3,
        fft_study,
        figure4,
        figure5,
        figure6,
        figure7,
        differential,
        redundancy,
        temporal,
        loss,
        split,
    )
}
