"""Sections of a GPU check that do not end well; each has emitted a row by then."""

import os
import time

from bench.gpu.rows import Row


def fails(scale, emit):
    emit(Row("broken", "before", 1.0, "s"))
    raise RuntimeError("the kernel is wrong")


def dies(scale, emit):
    emit(Row("broken", "before", 1.0, "s"))
    os._exit(7)


def hangs(scale, emit):
    emit(Row("broken", "before", 1.0, "s"))
    time.sleep(600)
