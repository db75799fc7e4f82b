"""`python -m dispatcher`."""

import sys

from dispatcher import cli


def main() -> None:
    """The installed command `dispatcher`."""
    sys.exit(cli.main())


if __name__ == "__main__":
    main()
