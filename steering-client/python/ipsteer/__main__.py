"""``python -m ipsteer`` and the ``ipsteer`` command: the same program as the cargo binary."""

import sys

from ipsteer import _native


def main() -> int:
    """Run the command and return its exit code."""
    return _native.main(["ipsteer", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
