"""Every experiment of the study, by name, in the order of the paper and then beyond it."""

from __future__ import annotations

from collections.abc import Mapping

from services.study.experiment import Experiment
from services.study.quantization import figure5, figure6
from services.study.tables import table1, table2

EXPERIMENTS: Mapping[str, Experiment] = {
    experiment.name: experiment for experiment in (table1, table2, figure5, figure6)
}
