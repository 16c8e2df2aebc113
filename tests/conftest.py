"""What holds for all tests: nothing is judged by the clock, and Triton's kernels run in its interpreter without a GPU.

Modules with kernels read that as they are imported.
"""

import os
from pathlib import Path

from hypothesis import HealthCheck, settings

if not any(Path("/dev").glob("nvidia[0-9]*")):
    os.environ.setdefault("TRITON_INTERPRET", "1")

# Upon what Hypothesis takes by default, which where CI is set repeats the same examples.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
