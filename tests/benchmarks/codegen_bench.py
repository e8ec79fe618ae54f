"""Compare ``sdk codegen`` on a large tree of protos with protoc and the same generators except ours.

``make bench-codegen`` runs it. It measures CPU time of all processes, which other load on the machine changes less than
wall-clock time. Both write the same tree in turns, and the ratio is the median of the rounds.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

BIN = Path(sys.executable).parent

# Limits: the ratio of a whole run to protoc's outputs, and the seconds in addition to parsing if nothing changed.
LIMIT_RATIO, LIMIT_UNCHANGED_S = 1.5, 1.0


@dataclass(frozen=True)
class Cost:
    """The cost of a command, in seconds: CPU time including its children, and wall-clock time."""

    cpu: float
    clock: float


def tree(folder: Path, protos: int) -> list[str]:
    """Write a tree of protos of typical sizes; return their names.

    Each has some 190 lines: an enum, three to fourteen commented messages, up to five imports, and half have a service.
    """
    chance = random.Random(1)
    names = [f"acme/area{n // 100}/part{n // 10 % 10}/file{n % 10}.proto" for n in range(protos)]
    for n, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        imports = chance.sample(range(max(0, n - 200), n), min(n, chance.randint(0, 5)))
        (folder / name).write_text("\n".join([*_head(n, names, imports), *_body(n, imports, chance), ""]))
    return names


def _package(n: int) -> str:
    return f"acme.area{n // 100}.part{n // 10 % 10}"


def _head(n: int, names: Sequence[str], imports: Sequence[int]) -> Iterator[str]:
    yield from ('syntax = "proto3";', "", f"package {_package(n)};", "")
    yield from (f'import "{names[other]}";' for other in imports)
    yield from ('import "google/protobuf/timestamp.proto";', "")


def _body(n: int, imports: Sequence[int], chance: random.Random) -> Iterator[str]:
    yield from (f"enum State{n} {{", *(f"  STATE{n}_{value} = {value};" for value in range(5)), "}", "")
    others = [f"{_package(other)}.M{other}x0" for other in imports]
    own = ["string", "int64", "bool", "double", "bytes", "repeated string", "map<string, int64>", "optional int32"]
    messages = chance.randint(3, 14)
    for message in range(messages):
        yield from (f"// Message {message} of file {n}.", "// What it is for takes a second line.")
        yield f"message M{n}x{message} {{"
        for field in range(chance.randint(2, 12)):
            kind = chance.choice([*own, f"State{n}", "google.protobuf.Timestamp", *others])
            yield from (f"  // Field {field}: what it means.", f"  {kind} field_{field} = {field + 1};")
        if message == 0:
            used = ["google.protobuf.Timestamp", *others]
            yield from (f"  {kind} used_{number} = {number};" for number, kind in enumerate(used, 100))
        yield from ("}", "")
    if n % 2 == 0:
        yield from (f"// Service of file {n}.", f"service Service{n} {{")
        for rpc in range(chance.randint(2, 10)):
            takes, gives = (chance.choice(["", "", "stream "]) for _ in range(2))
            request = others[0] if others and rpc % 3 == 0 else f"M{n}x{chance.randrange(messages)}"
            yield "  // Does something with it, and says what came of it."
            yield f"  rpc Call{rpc}({takes}{request}) returns ({gives}M{n}x{chance.randrange(messages)});"
        yield "}"


@contextmanager
def empty(folder: Path) -> Iterator[Path]:
    """Make an empty folder, and remove it again."""
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def measure(command: Sequence[str], folder: Path) -> Cost:
    """Run a command and return its cost."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    after, ended = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    return Cost(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, ended - began)


def protoc(*arguments: str) -> list[str]:
    """Return a command that runs plain protoc on the tree."""
    return [sys.executable, "-m", "grpc_tools.protoc", "-Iprotos", *arguments, "@names"]


def main() -> int:
    """Print the figures; return 1 when one is over its limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--protos", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    # protoc finds the plugins of mypy-protobuf on the path.
    os.environ["PATH"] = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    with tempfile.TemporaryDirectory(prefix="codegen-bench-") as temporary:
        folder = Path(temporary)
        names = tree(folder / "protos", given.protos)
        (folder / "names").write_text("\n".join(names))
        one = [str(BIN / "sdk"), "codegen", "protos/acme/area0/part0/file0.proto", "-Iprotos", "--out", "out"]
        whole = [str(BIN / "sdk"), "codegen", "protos", "--out", "out"]
        outputs = ("--python_out=out", "--grpc_python_out=out", "--mypy_out=quiet:out", "--mypy_grpc_out=quiet:out")
        rows: dict[str, list[Cost]] = {}

        def row(name: str, command: Sequence[str]) -> None:
            rows.setdefault(name, []).append(measure(command, folder))

        for _ in range(given.rounds):
            with empty(folder / "out"):
                row("protoc: python, grpc, mypy", protoc(*outputs))
            with empty(folder / "out"):
                row("protoc: parse only", protoc(f"--descriptor_set_out={os.devnull}"))
                row("sdk codegen", whole)
                row("sdk codegen, nothing changed", whole)
            with empty(folder / "out"):
                row("sdk codegen --package", [*whole, "--package", "myapp.gen"])
            with empty(folder / "out"):
                row("sdk codegen, one proto", one)
                row("sdk codegen, one proto, nothing changed", one)
    print(f"{given.protos} protos, median of {given.rounds} rounds, seconds")
    for name, costs in rows.items():
        cpu, clock = (statistics.median(getattr(cost, kind) for cost in costs) for kind in ("cpu", "clock"))
        print(f"  {name:42}{cpu:7.2f} CPU {clock:7.2f} clock")
    return report(rows)


def report(rows: dict[str, list[Cost]]) -> int:
    """Print the ratios of each round's medians; return 1 when one is over its limit."""
    base = rows["protoc: python, grpc, mypy"]
    code = 0
    for name in ("sdk codegen", "sdk codegen --package"):
        ratio = statistics.median(cost.cpu / of.cpu for cost, of in zip(rows[name], base, strict=True))
        print(f"{name}: {ratio:.2f} times protoc (limit {LIMIT_RATIO})")
        code |= ratio > LIMIT_RATIO
    pairs = zip(rows["sdk codegen, nothing changed"], rows["protoc: parse only"], strict=True)
    besides = statistics.median(cost.cpu - parse.cpu for cost, parse in pairs)
    print(f"nothing changed: {besides:.2f} s besides parsing (limit {LIMIT_UNCHANGED_S})")
    return code | (besides > LIMIT_UNCHANGED_S)


if __name__ == "__main__":
    sys.exit(main())
