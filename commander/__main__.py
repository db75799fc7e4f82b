"""`python -m commander`."""

import sys

from commander import cli


def main() -> None:
    sys.exit(cli.main())


if __name__ == "__main__":
    main()
