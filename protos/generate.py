"""The one recipe that generates `shared/pb` from `agent.proto`.

    python protos/generate.py           write the generated files
    python protos/generate.py --check   exit 1 if the committed files differ from what would be written

The virtual path `shared/pb=protos` makes the stubs import `shared.pb`, from source, wheel and editable install alike.
"""

import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path("shared/pb")


def generate(out: Path) -> None:
    (out / TARGET).mkdir(parents=True, exist_ok=True)
    arguments = [
        "protoc",
        f"-I{TARGET}={ROOT / 'protos'}",
        f"-I{files('grpc_tools') / '_proto'}",
        f"--python_out={out}",
        f"--pyi_out={out}",
        f"--grpc_python_out={out}",
        f"{TARGET}/agent.proto",
    ]
    if status := protoc.main(arguments):
        sys.exit(status)


def drift() -> list[str]:
    """Names of the generated files that are missing or differ."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        fresh = {path.name: path.read_bytes() for path in (Path(folder) / TARGET).iterdir()}
    return [
        name
        for name, content in sorted(fresh.items())
        if not (ROOT / TARGET / name).is_file() or (ROOT / TARGET / name).read_bytes() != content
    ]


def main() -> None:
    if sys.argv[1:] == ["--check"]:
        if names := drift():
            sys.exit(f"generated code differs from agent.proto: {', '.join(names)}; run `make proto`")
    elif sys.argv[1:]:
        sys.exit(f"usage: {sys.argv[0]} [--check]")
    else:
        generate(ROOT)


if __name__ == "__main__":
    main()
