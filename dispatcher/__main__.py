"""`python -m dispatcher`."""

import os
import sys


def main() -> None:
    """The installed command `dispatcher`."""
    # gRPC looks at these when it is imported. C-core's own lines say no more than a stream's status or our log.
    # The Commander of `dev` is a program of its own: no fork to prepare for.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    if sys.argv[1:2] == ["health"]:
        from dispatcher.verbs import health

        sys.exit(health.main(sys.argv[2:]))
    from dispatcher.verbs import main as cli

    sys.exit(cli.main())


if __name__ == "__main__":
    if not sys.flags.safe_path:  # the working folder, which may hold what is named like our packages, or Python's: last
        sys.path.append(sys.path.pop(0))
    main()
