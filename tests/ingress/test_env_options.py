"""Options of the ingress in environment variables."""

from __future__ import annotations

import pytest

import sdk
from sdk._ingress.env_options import from_environment, variable


def test_variables_set_options_of_every_kind() -> None:
    environment = {
        "SDK_GRPC_HOST": "0.0.0.0",
        "SDK_GRPC_PORT": " 9001 ",
        "SDK_GRPC_REQUEST_TIMEOUT_S": "2.5",
        "SDK_GRPC_ROUTE_BY_SERVICE": "Yes",
        "SDK_GRPC_ERROR_DETAILS": "none",
        "SDK_GRPC_ENVOY_CONCURRENCY": "4",
        "SDK_GRPC_TLS_CERTIFICATE": "",
        "PATH": "/bin",
    }
    options = sdk.GrpcOptions(**from_environment(environment))
    assert options == sdk.GrpcOptions(
        host="0.0.0.0",
        port=9001,
        request_timeout_s=2.5,
        route_by_service=True,
        error_details="none",
        envoy_concurrency=4,
    )


def test_every_invalid_variable_is_reported() -> None:
    with pytest.raises(sdk.OptionsError) as raised:
        from_environment({"SDK_GRPC_PROT": "1", "SDK_GRPC_PORT": "many", "SDK_GRPC_ROUTE_BY_SERVICE": "perhaps"})
    assert str(raised.value) == (
        "environment variables SDK_GRPC_…: SDK_GRPC_PORT must be a whole number, not 'many'; "
        "SDK_GRPC_PROT is not an option of the ingress; did you mean SDK_GRPC_PORT?; "
        "SDK_GRPC_ROUTE_BY_SERVICE must be true or false, not 'perhaps'"
    )


def test_a_value_that_the_options_reject() -> None:
    with pytest.raises(sdk.OptionsError, match="port must be a whole number from 1 to 65535, not 0"):
        from_environment({variable("port"): "0"})
