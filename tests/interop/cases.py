"""The cases of gRPC's interop test description that test a server, and their messages.

README.md lists the others, with the reasons why they do not apply.
"""

from __future__ import annotations

from interop_pb2 import (
    BoolValue,
    EchoStatus,
    Payload,
    ResponseParameters,
    SimpleRequest,
    StreamingInputCallRequest,
    StreamingOutputCallRequest,
)

CASES = (
    "empty_unary",
    "large_unary",
    "client_compressed_unary",
    "server_compressed_unary",
    "client_streaming",
    "client_compressed_streaming",
    "server_streaming",
    "server_compressed_streaming",
    "ping_pong",
    "half_duplex",
    "empty_stream",
    "custom_metadata",
    "status_code_and_message",
    "special_status_message",
    "unimplemented_method",
    "unimplemented_service",
    "cancel_after_begin",
    "cancel_after_first_response",
    "timeout_on_sleeping_server",
    "concurrent_large_unary",
    "rpc_soak",
    "channel_soak",
    "long_lived_channel",
)

REQUEST_SIZE, RESPONSE_SIZE = 271828, 314159
UPLOADS, AGGREGATED = (27182, 8, 1828, 45904), 74922
DOWNLOADS = (31415, 9, 2653, 58979)
COMPRESSED_DOWNLOADS = ((31415, True), (92653, False))
# One compressed request and one uncompressed.
COMPRESSED_UPLOADS, COMPRESSED_AGGREGATED = (27182, 45904), 73086

INITIAL_KEY, INITIAL_VALUE = "x-grpc-test-echo-initial", "test_initial_metadata_value"
TRAILING_KEY, TRAILING_VALUE = "x-grpc-test-echo-trailing-bin", b"\xab\xab\xab"
ECHOED = ((INITIAL_KEY, INITIAL_VALUE), (TRAILING_KEY, TRAILING_VALUE))

STATUS_CODE, STATUS_MESSAGE = 2, "test status message"
SPECIAL_MESSAGE = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"

UNIMPLEMENTED_METHOD = "/grpc.testing.TestService/UnimplementedCall"
UNIMPLEMENTED_SERVICE = "/grpc.testing.UnimplementedService/UnimplementedCall"

#: More than the handlers of either service that run at once.
CONCURRENT_CALLS = 200
SOAK_ITERATIONS = 20
PAUSES, PAUSE_S = 4, 0.1


def payload(size: int) -> Payload:
    return Payload(body=bytes(size))


def large(*, expect_compressed: bool | None = None, response_compressed: bool | None = None) -> SimpleRequest:
    return SimpleRequest(
        response_size=RESPONSE_SIZE,
        payload=payload(REQUEST_SIZE),
        expect_compressed=optional(expect_compressed),
        response_compressed=optional(response_compressed),
    )


def optional(value: bool | None) -> BoolValue | None:
    return None if value is None else BoolValue(value=value)


def upload(size: int, *, expect_compressed: bool | None = None) -> StreamingInputCallRequest:
    return StreamingInputCallRequest(payload=payload(size), expect_compressed=optional(expect_compressed))


def download(*sizes: int, request_size: int | None = None) -> StreamingOutputCallRequest:
    return StreamingOutputCallRequest(
        response_parameters=[ResponseParameters(size=size) for size in sizes],
        payload=None if request_size is None else payload(request_size),
    )


def compressed_download() -> StreamingOutputCallRequest:
    return StreamingOutputCallRequest(
        response_parameters=[
            ResponseParameters(size=size, compressed=BoolValue(value=compressed))
            for size, compressed in COMPRESSED_DOWNLOADS
        ]
    )


def ping_pongs() -> list[StreamingOutputCallRequest]:
    return [download(size, request_size=request) for size, request in zip(DOWNLOADS, UPLOADS, strict=True)]


def echoed_status(message: str) -> EchoStatus:
    return EchoStatus(code=STATUS_CODE, message=message)
