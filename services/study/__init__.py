"""The paper's study: every table and figure, measured again."""

NAMES = ("table1", "table2", "figure5", "figure6")
"""Of the experiments, first the paper's; here, so that the command line need not import what measures them."""
