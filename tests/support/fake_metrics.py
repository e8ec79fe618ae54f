"""Metrics that keep what they are given, in place of those of Ray, which need a cluster and ten seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

NODE = {"node_id": "n1", "node_ip_address": "10.0.0.5"}


class Recorded:
    """One metric.

    Attributes:
        kind: ``"counter"``, ``"gauge"`` or ``"histogram"``.
        labels: Names of its labels.
        values: Sum, last value or number of observations, by the values of all labels.
        observed: The observations.
    """

    def __init__(self, kind: str, labels: Sequence[str]) -> None:
        self.kind, self.labels = kind, tuple(labels)
        self.values: dict[frozenset[tuple[str, str]], float] = {}
        self.observed: list[float] = []
        self._defaults: Mapping[str, str] = {}

    def set_default_tags(self, tags: Mapping[str, str]) -> Recorded:
        self._defaults = tags
        return self

    def inc(self, value: float, tags: Mapping[str, str] | None = None) -> None:
        assert value > 0, "Ray refuses it"
        key = self._key(tags)
        self.values[key] = self.values.get(key, 0) + value

    def set(self, value: float, tags: Mapping[str, str] | None = None) -> None:
        self.values[self._key(tags)] = value

    def observe(self, value: float, tags: Mapping[str, str] | None = None) -> None:
        self.inc(1, tags)
        self.observed.append(value)

    def value(self, **labels: str) -> float:
        """Return the sum of the values with these labels."""
        return sum(value for key, value in self.values.items() if labels.items() <= dict(key).items())

    def _key(self, tags: Mapping[str, str] | None) -> frozenset[tuple[str, str]]:
        given = {**self._defaults, **(tags or {})}
        assert set(given) == set(self.labels), "every label of the metric has a value, and no other"
        return frozenset(given.items())


def record_metrics(monkeypatch: pytest.MonkeyPatch, module: Any) -> dict[str, Recorded]:
    """Return the metrics that a module makes from now on, by name; it makes none of Ray's."""
    made: dict[str, Recorded] = {}

    def counter(name: str, _text: str, labels: Sequence[str]) -> Recorded:
        return made.setdefault(name, Recorded("counter", labels))

    def gauge(name: str, _text: str, labels: Sequence[str]) -> Recorded:
        return made.setdefault(name, Recorded("gauge", labels))

    def histogram(name: str, _text: str, _bounds: Sequence[float], labels: Sequence[str]) -> Recorded:
        return made.setdefault(name, Recorded("histogram", labels))

    for name, make in (("Counter", counter), ("Gauge", gauge), ("Histogram", histogram)):
        monkeypatch.setattr(module, name, make, raising=False)
    if hasattr(module, "ray"):
        context = SimpleNamespace(get_node_id=lambda: NODE["node_id"], get_actor_id=lambda: "actor1")
        util = SimpleNamespace(get_node_ip_address=lambda: NODE["node_ip_address"])
        monkeypatch.setattr(module, "ray", SimpleNamespace(get_runtime_context=lambda: context, util=util))
    return made
