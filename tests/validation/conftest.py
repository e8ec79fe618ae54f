"""A service whose messages have rules; its code, with that of the rules, is generated when the tests are collected."""

from __future__ import annotations

from pathlib import Path

from tests.support.cluster import generate, share_with_replicas

share_with_replicas(generate(Path(__file__).parent / "protos"))
