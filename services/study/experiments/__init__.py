"""The experiments, one file a table or figure: by name, in the order of the paper and then beyond it."""

from __future__ import annotations

from collections.abc import Mapping

from services.study.experiments.differential import differential
from services.study.experiments.fft import fft_study
from services.study.experiments.figure1 import figure1
from services.study.experiments.figure2 import figure2
from services.study.experiments.figure3 import figure3
from services.study.experiments.figure4 import figure4
from services.study.experiments.figure5 import figure5
from services.study.experiments.figure6 import figure6
from services.study.experiments.figure7 import figure7
from services.study.experiments.inversion import inversion
from services.study.experiments.loss import loss
from services.study.experiments.redundancy import redundancy
from services.study.experiments.split import split
from services.study.experiments.tables import table1, table2
from services.study.experiments.temporal import temporal
from services.study.study import Experiment

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
        inversion,
    )
}
