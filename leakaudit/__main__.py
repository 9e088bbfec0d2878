"""`leakaudit` and `python -m leakaudit`."""

from __future__ import annotations

import os

from leakaudit.cli.interrupts import stopped_at_once


def main() -> None:
    """Run the command line."""
    # Threads of torch that wait for each other sleep. Left to themselves they spin, and beside one
    # busy process an eigenproblem of 1200 unknowns took 6 to 16 s of computing instead of 0.6 s.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with stopped_at_once():
        from leakaudit.cli.main import main as run
    run()


if __name__ == "__main__":
    main()
