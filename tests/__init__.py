"""Tests mirror the packages they test. Importing this starts a program: pytest, a fuzz target, the screenshot."""

from services.environment import prepare_process

prepare_process()  # before a test loads numpy or ultralytics
