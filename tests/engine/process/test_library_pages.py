"""What only a start needed is given back, and the libraries work as before."""

import subprocess
import sys
import textwrap

import pytest

from pagoda_engine.process import library_pages

SCRIPT = """
    import re
    from pathlib import Path
    import numpy
    import torch
    from pagoda_engine.process.library_pages import give_back

    def resident():
        told = Path("/proc/self/smaps").read_text()
        return int(re.search(r"r-xp .*/libtorch_cpu(?:.*\\n)*?Rss: +(\\d+)", told)[1]) << 10

    def compute():
        numbers = torch.arange(6.0).reshape(2, 3)
        more = torch.special.zeta(numbers + 2, 2).sum().item()
        return (numbers @ numbers.T).sum().item(), numpy.linalg.norm(numpy.arange(9.0)), more

    wanted = compute()
    before = resident()
    given = give_back()
    assert given > before, "libtorch is one of several"
    assert resident() < before / 4
    assert compute() == wanted
    assert give_back() < given, "what was given back is not there to give again"
"""


@pytest.mark.skipif(not library_pages._SMAPS.exists(), reason="only Linux tells of its pages")
def test_pages_of_libraries_go_and_come_back_when_they_are_used():
    """In a process of its own, which has just imported torch."""
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(SCRIPT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_system_that_tells_nothing_of_its_pages_keeps_them(monkeypatch, tmp_path):
    monkeypatch.setattr(library_pages, "_SMAPS", tmp_path / "smaps")
    assert library_pages.give_back() == 0


def test_what_a_process_wrote_into_a_library_is_its_own():
    """Relocated data is read-only later on, and no copy of the file any more."""
    told = """\
7f0000000000-7f0000001000 r--p 00000000 fe:00 7 /lib/a.so
Rss:                   4 kB
Anonymous:             0 kB
7f0000001000-7f0000002000 r--p 00001000 fe:00 7 /lib/a.so
Rss:                   4 kB
Anonymous:             4 kB
7f0000002000-7f0000003000 rw-p 00000000 00:00 0 [heap]
Rss:                   4 kB
Anonymous:             4 kB
"""
    found = [(one.start, one.is_library, one.resident, one.own) for one in library_pages._mappings(told)]
    assert found == [(0x7F0000000000, True, 4, 0), (0x7F0000001000, True, 4, 4), (0x7F0000002000, False, 4, 4)]
