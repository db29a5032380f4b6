"""Every experiment of the study, by name, in the order of the paper and then beyond it."""

from __future__ import annotations

from collections.abc import Mapping

from services.study.differences import differential, temporal
from services.study.distribution import figure1, figure2, figure3
from services.study.experiment import Experiment
from services.study.frequency import fft_study
from services.study.loss import loss
from services.study.lossless import figure7
from services.study.quantization import figure5, figure6
from services.study.redundancy import redundancy
from services.study.relevance import figure4
from services.study.splits import split
from services.study.tables import table1, table2

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
