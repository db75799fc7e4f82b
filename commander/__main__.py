"""`python -m commander`."""

import os
import sys

# C-core writes its own lines to standard error, also where a server merely has no health service. What matters of it
# comes with the stream's status. Read when grpc is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from commander import cli


def main() -> None:
    sys.exit(cli.main())


if __name__ == "__main__":
    main()
