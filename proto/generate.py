"""Makes the stubs from the contract; with `--check`, fails if the committed ones differ.

python proto/generate.py [--check]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

ROOT = Path(__file__).parent
GOOGLE = Path(grpc_tools.__file__).parent / "_proto"
KSERVE = "demur/kserve/grpc_service.proto"


def generate(target: Path) -> None:
    """Write every stub below `target`; SystemExit with protoc's code if it refuses."""
    includes = [f"-I{ROOT}", f"-I{GOOGLE}"]
    own = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "demur" / "v1").glob("*.proto"))
    outs = [f"--python_out={target}", f"--pyi_out={target}", f"--grpc_python_out={target}"]
    compiled = target / KSERVE.replace(".proto", ".binpb")
    compiled.parent.mkdir(parents=True, exist_ok=True)
    for arguments in ([*outs, *own], [f"--descriptor_set_out={compiled}", KSERVE]):
        code = protoc.main(["protoc", *includes, *arguments])
        if code:
            raise SystemExit(code)


def stale(fresh: Path) -> list[str]:
    """Name the files that differ between `fresh` and the committed stubs, either way."""
    made = {path.relative_to(fresh) for path in fresh.rglob("*") if path.is_file()}
    kept = {
        path.relative_to(ROOT)
        for pattern in ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*.binpb")
        for path in ROOT.rglob(pattern)
    }
    changed = {path for path in made & kept if (fresh / path).read_bytes() != (ROOT / path).read_bytes()}
    return sorted(str(path) for path in changed | (made ^ kept))


def main() -> None:
    """Generate in place, or check."""
    if "--check" not in sys.argv[1:]:
        generate(ROOT)
        return
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        differing = stale(Path(folder))
    if differing:
        sys.exit(f"stubs differ from the contract: {', '.join(differing)}; run `make stubs`")


if __name__ == "__main__":
    main()
