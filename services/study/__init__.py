"""The paper's study: every table and figure, measured again."""

NAMES = (
    "table1",
    "table2",
    "figure1",
    "figure2",
    "figure3",
    "fft",
    "figure4",
    "figure5",
    "figure6",
    "figure7",
    "differential",
    "redundancy",
    "temporal",
    "loss",
    "split",
    "inversion",
)
"""Of the experiments, first the paper's; here, so that the command line need not import what measures them."""
