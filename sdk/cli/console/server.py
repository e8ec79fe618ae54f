"""The HTTP server of the console, for the page on this machine."""

from __future__ import annotations

import asyncio
import errno
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

from aiohttp import web

from sdk._error_text import os_reason
from sdk._pages.files import HEADERS, names_of, read_file
from sdk._replica_protocol import CATALOG_PATH, CONSOLE_PATH, CONSOLE_PREFIX, INGRESS_STATE_PATH
from sdk.cli.console.calls import CallRequest, ConsoleCall
from sdk.cli.console.guard import Guard
from sdk.cli.rpc.json_messages import dumps
from sdk.errors import OptionsError, SdkError

if TYPE_CHECKING:
    from sdk.cli.console.services import Services
    from sdk.cli.rpc.connection import ServerConnection

#: Path of the calls of the page (POST), and of the messages that follow (POST).
CALLS_PATH = f"{CONSOLE_PREFIX}calls"
_NDJSON = "application/x-ndjson"
# Threads for calls, each of which has one as long as it runs; a browser has six connections to a host.
_MOST_CALLS = 32

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Readable(Protocol):
    """A source of the state of the cluster."""

    def read(self) -> dict[str, Any]:
        """Return the state as a JSON value."""


class ConsoleServer:
    """Serves the page, and what it asks for.

    Args:
        connection: The server that the page calls.
        services: Its services.
        cluster: The cluster behind it.
        guard: Refuses requests of other pages.
    """

    def __init__(self, connection: ServerConnection, services: Services, cluster: Readable, guard: Guard) -> None:
        self._connection = connection
        self._services = services
        self._cluster = cluster
        self._guard = guard
        self._threads = ThreadPoolExecutor(_MOST_CALLS, "console")
        self._calls: dict[str, ConsoleCall] = {}
        self._files = names_of(CONSOLE_PATH)

    def application(self) -> web.Application:
        """Return the application of aiohttp."""
        application = web.Application(middlewares=[self._check], client_max_size=64 << 20)
        application.router.add_get("/", self._redirect)
        application.router.add_get(CATALOG_PATH, self._answer_services)
        application.router.add_get(INGRESS_STATE_PATH, self._answer_cluster)
        application.router.add_post(CALLS_PATH, self._answer_call)
        application.router.add_post(CALLS_PATH + "/{id}", self._answer_messages)
        for path in self._files:
            application.router.add_get(path, self._answer_file)
        return application

    @web.middleware
    async def _check(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        is_api = request.path not in self._files and request.path != "/"
        problem = self._guard.problem(request.headers, is_api=is_api)
        if problem:
            return _error(403, problem)
        try:
            return await handler(request)
        except OptionsError as error:
            return _error(400, str(error))
        except SdkError as error:  # the server does not answer
            return _error(502, str(error))

    async def _redirect(self, _: web.Request) -> web.StreamResponse:
        raise web.HTTPFound(CONSOLE_PATH)

    async def _answer_file(self, request: web.Request) -> web.StreamResponse:
        kind, content = read_file(self._files[request.path])
        return web.Response(body=content, headers={**HEADERS, "content-type": kind})

    async def _answer_services(self, _: web.Request) -> web.StreamResponse:
        found = await self._in_thread(self._services.catalog)
        about = {"target": self._connection.target, "calls": "console"}
        return _json({**about, "applications": found})

    async def _answer_cluster(self, _: web.Request) -> web.StreamResponse:
        return _json(await self._in_thread(self._cluster.read))

    async def _answer_call(self, request: web.Request) -> web.StreamResponse:
        asked = CallRequest.from_json(await _body(request))
        call = await self._in_thread(ConsoleCall.open, self._connection.client, self._services, asked)
        call_id = secrets.token_urlsafe(8)
        response = web.StreamResponse(headers={**HEADERS, "content-type": _NDJSON, "x-console-call": call_id})
        await response.prepare(request)
        self._calls[call_id] = call
        try:
            await self._in_thread(_send_events, call, response, asyncio.get_running_loop())
        finally:
            del self._calls[call_id]
            call.cancel()  # the page has gone, or cancelled it; no effect on a call that has ended
        return response

    async def _answer_messages(self, request: web.Request) -> web.StreamResponse:
        call = self._calls.get(request.match_info["id"])
        if call is None:
            return _error(404, "the call has ended")
        body = await _body(request)
        messages = body.get("messages", []) if isinstance(body, dict) else None
        if not isinstance(messages, list) or not all(isinstance(each, str) for each in messages):
            raise OptionsError("the messages of the page are not texts: reload the page")
        call.requests.add(tuple(messages))
        if not body.get("open"):
            call.requests.end()
        return _json({})

    async def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)


def _send_events(call: ConsoleCall, response: web.StreamResponse, loop: asyncio.AbstractEventLoop) -> None:
    """Send what happens in a call to the page, no faster than the page reads it."""

    def send(event: dict[str, Any]) -> None:
        line = dumps(event).encode() + b"\n"
        asyncio.run_coroutine_threadsafe(response.write(line), loop).result()

    try:
        for event in call.events():
            send(event)
    except SdkError as error:  # a message that JSON can't represent
        send({"event": "problem", "message": str(error)})
    except ConnectionResetError:
        pass  # the page has gone: the handler of its request cancels the call


async def _body(request: web.Request) -> Any:
    if request.content_type != "application/json":
        raise OptionsError("the content-type of a request of the page is application/json")
    try:
        return await request.json()
    except ValueError as error:
        raise OptionsError(f"the request of the page is not JSON: {error}") from None


def _json(value: Any, status: int = 200) -> web.Response:
    headers = {**HEADERS, "content-type": "application/json"}
    return web.Response(status=status, body=dumps(value).encode(), headers=headers)


def _error(status: int, message: str) -> web.Response:
    return _json({"message": message}, status)


@asynccontextmanager
async def listen(
    port: int, serve: Callable[[Guard], ConsoleServer], token: str | None = None
) -> AsyncIterator[tuple[str, ConsoleServer]]:
    """Serve on the loopback address until the end of the context.

    Args:
        port: The port; 0 for a free one.
        serve: Returns the server for a guard.
        token: The token; None for a random one.

    Yields:
        The link of the page, with the token behind ``#``, which browsers do not send.

    Raises:
        OptionsError: The port is not free.
    """
    import socket

    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError as error:
        listener.close()
        why = "another program listens there" if error.errno == errno.EADDRINUSE else os_reason(error)
        raise OptionsError(f"--port {port} on 127.0.0.1 is not free: {why}. Give another one, or 0.") from None
    guard = Guard(listener.getsockname()[1], token or secrets.token_urlsafe(24))
    server = serve(guard)
    runner = web.AppRunner(server.application(), handler_cancellation=True, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.SockSite(runner, listener).start()
        yield f"http://{guard.hosts[0]}{CONSOLE_PATH}#token={guard.token}", server
    finally:
        await runner.cleanup()
