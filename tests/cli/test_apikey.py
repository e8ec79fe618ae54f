"""`sdk apikey`: the key on stdout, the line for the file on stderr."""

from __future__ import annotations

import hashlib

import pytest
from click.testing import CliRunner

from sdk._ingress.credentials import parse_api_keys
from sdk.cli.main import main


def test_the_line_has_the_digest_of_the_key() -> None:
    done = CliRunner().invoke(main, ["apikey", "batch"])
    assert done.exit_code == 0
    key = done.stdout.strip()
    assert len(key) > 40
    line = done.stderr.splitlines()[-1]
    assert parse_api_keys(line) == ({hashlib.sha256(key.encode()).hexdigest(): "batch"}, [])
    assert key not in done.stderr
    assert CliRunner().invoke(main, ["apikey", "batch"]).stdout.strip() != key


@pytest.mark.parametrize("name", ["", "a b", 'a"b', "é", "x" * 129])
def test_a_wrong_name(name: str) -> None:
    done = CliRunner().invoke(main, ["apikey", name])
    assert (done.exit_code, done.stdout) == (2, "")
    assert "NAME" in done.stderr
