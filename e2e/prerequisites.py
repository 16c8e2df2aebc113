"""`python -m e2e.prerequisites`: install, fetch and build what `pytest e2e` needs, telling how far it is.

Always exits with 0: where something can't be had the scenarios skip with the same words, and say so in their summary.
"""

from __future__ import annotations

import subprocess
import sys

from e2e import binaries, machine


def main() -> int:
    try:
        machine.install()
        machine.check()
        binaries.find(lambda line: print(line, file=sys.stderr, flush=True))
        # Pods may not write where this installation keeps machine code, and would each make their own.
        subprocess.run([sys.executable, "-m", "pagoda_engine.model.fused.precompile", "--here"], check=True)
    except binaries.Missing as missing:
        print(f"e2e: THE SCENARIOS WILL BE SKIPPED: {missing}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
