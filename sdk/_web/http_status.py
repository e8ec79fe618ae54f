"""The HTTP status and the name of each gRPC status code, as Connect defines them.

https://connectrpc.com/docs/protocol#error-codes
"""

from __future__ import annotations

from http import HTTPStatus

#: Name and HTTP status by gRPC status code.
CODES: dict[int, tuple[str, int]] = {
    1: ("canceled", 499),
    2: ("unknown", 500),
    3: ("invalid_argument", 400),
    4: ("deadline_exceeded", 504),
    5: ("not_found", 404),
    6: ("already_exists", 409),
    7: ("permission_denied", 403),
    8: ("resource_exhausted", 429),
    9: ("failed_precondition", 400),
    10: ("aborted", 409),
    11: ("out_of_range", 400),
    12: ("unimplemented", 501),
    13: ("internal", 500),
    14: ("unavailable", 503),
    15: ("data_loss", 500),
    16: ("unauthenticated", 401),
}


def name_of(code: int) -> str:
    """Return Connect's name of a status code.

    Example:
        >>> name_of(5)
        'not_found'
    """
    return CODES.get(code, CODES[2])[0]


def status_line(code: int) -> bytes:
    r"""Return the status line of the response to a call that ended with this code.

    Example:
        >>> status_line(5)
        b'HTTP/1.1 404 Not Found\r\n'
    """
    status = 200 if code == 0 else CODES.get(code, CODES[2])[1]
    phrase = "Client Closed Request" if status == 499 else HTTPStatus(status).phrase
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()
