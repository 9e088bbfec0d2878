"""`leakaudit` and `python -m leakaudit`."""

from __future__ import annotations

from leakaudit.cli.interrupts import stopped_at_once


def main() -> None:
    """Run the command line."""
    with stopped_at_once():
        from leakaudit.cli.main import main as run
    run()


if __name__ == "__main__":
    main()
