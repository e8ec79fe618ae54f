"""The check of the address that Envoy is to listen on."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from sdk._ingress.envoy.process import check_port
from sdk.errors import IngressError

# https://datatracker.ietf.org/doc/html/rfc5737: for documentation, of no machine
_ELSEWHERE = "203.0.113.1"


def test_a_free_port() -> None:
    check_port("127.0.0.1", 0)
    check_port("::1", 0)


def test_a_port_of_another_process() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            IngressError, match=f"127.0.0.1:{port}: address already in use. Choose another port .* stop"
        ):
            check_port("127.0.0.1", port)


def test_an_address_of_another_machine() -> None:
    with pytest.raises(
        IngressError, match=r": cannot assign requested address\. Give an address of this machine with"
    ) as it:
        check_port(_ELSEWHERE, 9000)
    assert "another port" not in str(it.value)


def test_a_port_for_root(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(socket.socket):
        def bind(self, address: object) -> None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(socket, "socket", Refusing)
    with pytest.raises(IngressError, match=r":443: permission denied\. Choose another port .* for root\."):
        check_port("127.0.0.1", 443)
