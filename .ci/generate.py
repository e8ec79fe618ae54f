"""Run ``sdk codegen`` for several folders of protos, in one process: most of its time is its start.

    .venv/bin/python .ci/generate.py [--check] PROTOS:OUT…

Each argument names protos and the folder of their code. With ``--check`` nothing is written: the exit code is 1 if a
file is stale.
"""

from __future__ import annotations

import sys

from sdk.cli.main import main as sdk


def main(arguments: list[str]) -> int:
    """Run the command for each argument; return the highest exit code."""
    options = [argument for argument in arguments if argument.startswith("--")]
    folders = [argument.split(":") for argument in arguments if argument not in options]
    codes = [sdk(["codegen", protos, "--out", out, *options], standalone_mode=False) for protos, out in folders]
    return max(code or 0 for code in codes)  # a command that ends well returns None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
