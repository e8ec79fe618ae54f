"""Record what `buf breaking` finds in the pairs of `buf_pairs.py`, with its rules WIRE and WIRE_JSON.

    npm install --prefix /tmp/buf @bufbuild/buf
    .venv/bin/python -m tests.protos.record_buf /tmp/buf/node_modules/.bin/buf

Writes `buf_results.json`, which the tests read, with the version of buf. Run it after a change of the pairs.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.protos.buf_pairs import PAIRS, Pair

RESULTS = Path(__file__).with_name("buf_results.json")
CATEGORIES = ("WIRE", "WIRE_JSON")


def found(buf: str, pair: Pair, category: str) -> list[str]:
    """Return the rules that a pair breaks."""
    with tempfile.TemporaryDirectory() as folder:
        for version in ("old", "new"):
            (Path(folder) / version).mkdir()
            (Path(folder) / version / "p.proto").write_text(getattr(pair, version))
        config = json.dumps({"version": "v2", "breaking": {"use": [category]}})
        command = [buf, "breaking", ".", "--against", "../old", "--error-format", "json", "--config", config]
        done = subprocess.run(command, cwd=Path(folder, "new"), capture_output=True, text=True, check=False)
        if done.returncode not in (0, 100):
            raise SystemExit(f"{pair.name}: {done.stderr}")
        return sorted({json.loads(line)["type"] for line in done.stdout.splitlines()})


def main(buf: str) -> None:
    version = subprocess.run([buf, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    pairs = {pair.name: {category: found(buf, pair, category) for category in CATEGORIES} for pair in PAIRS}
    rows = ",\n".join(f"    {json.dumps(name)}: {json.dumps(rules)}" for name, rules in pairs.items())
    RESULTS.write_text(f'{{\n  "buf": {json.dumps(version)},\n  "pairs": {{\n{rows}\n  }}\n}}\n')


if __name__ == "__main__":
    main(sys.argv[1])
