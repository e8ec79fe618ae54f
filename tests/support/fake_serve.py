"""A Ray Serve that runs and has no applications, for controllers without Ray."""

from __future__ import annotations

from collections.abc import Container, Mapping

from sdk._ingress.serve_link import ServeLink


class EmptyServe(ServeLink):
    """Answers as a Ray Serve without applications."""

    def __init__(self) -> None:
        super().__init__("controller", "serve", "a_module")

    def is_running(self) -> bool:
        return True

    def list_deployments(self) -> Mapping[str, Container[str]]:
        return {}

    def list_failed(self) -> frozenset[str]:
        return frozenset()
