"""Trains the embedded demo network: `python -m services.training`; not installed with the package.

Its modules are programs, so importing it starts one.
"""

from services.environment import prepare_process

prepare_process()  # before a program here loads numpy or ultralytics
