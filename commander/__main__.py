"""`python -m commander`."""

import os
import sys

# C-core writes its own lines to standard error, also where a server merely has no health service. What matters of it
# comes with the stream's status. Read when grpc is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
# An agent that forks would wait for C-core's threads, now and then without end; what it forks has no use for gRPC.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")


def main() -> None:
    """The installed command `commander`."""
    from commander import cli

    sys.exit(cli.main())


if __name__ == "__main__":
    if not sys.flags.safe_path:  # the working folder, which may hold what is named like our packages, or Python's: last
        sys.path.append(sys.path.pop(0))
    main()
