"""`--cpu-target NAME` compiles the kernels for a lesser processor than this one."""

from pagoda_engine.kernels.cpu.target import TARGETS, select


def pytest_addoption(parser):
    parser.addoption("--cpu-target", choices=[target.name for target in TARGETS], help="compile kernels for it")


def pytest_configure(config):
    if name := config.getoption("--cpu-target", None):
        select(next(target for target in TARGETS if target.name == name))
