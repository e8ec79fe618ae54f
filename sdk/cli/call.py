"""``sdk call``: call a method of any gRPC server, with messages as JSON."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from codegen.proto_path import proto_path_option
from sdk.cli.rpc.method_completion import complete_method
from sdk.cli.rpc.server_options import quieten_grpc, server_options
from sdk.errors import ServerError

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from sdk.cli.rpc.connection import ServerConnection
    from sdk.cli.rpc.json_messages import JsonCodec
    from sdk.cli.rpc.outcome import CallOutcome
    from sdk.cli.rpc.schemas import Schema
    from sdk.service import Method

_PATH = click.Path(path_type=Path)

# Status message of the ingress for a call without `application` metadata if there are several applications; Ray Serve's
# guide defines it: https://docs.ray.io/en/latest/serve/advanced-guides/grpc-guide.html
_NO_APPLICATION = "Application metadata not set"
_EXAMPLES = """\b
Examples:
  sdk call localhost:9000 greet.Greeter/SayHello -d '{"name": "you"}'
  sdk call localhost:9000 SayHello --application greeter --timeout 2
  sdk call localhost:9000 Chat -d -                 (type one message on each line)
  sdk call https://example.com Greeter/SayHello -H 'authorization: Bearer …'
  sdk call localhost:9000 SayHello --protos protos/ -d @request.json
"""


@click.command(epilog=_EXAMPLES)
@click.argument("target")
@click.argument("method", metavar="METHOD", shell_complete=complete_method)
@click.option(
    "-d",
    "--data",
    metavar="JSON|@FILE|-",
    help="Request: a JSON object (several in a row for a stream), a file of them, or standard input, where each is "
    "sent as soon as it arrives.",
)
@click.option("--model-id", metavar="ID", help="Prefer a replica that has loaded this model.")
@click.option("--request-id", metavar="ID", help="ID of the request in the server's logs.  [default: the server's]")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Deadline of the call; after it, the status is DEADLINE_EXCEEDED.  [default: none]",
)
@click.option(
    "--protocol",
    type=click.Choice(["grpc", "grpc-web", "connect", "json"]),
    default="grpc",
    show_default=True,
    help="Protocol of the call; all but grpc use HTTP/1.1, and send a stream of requests at once.",
)
@server_options
@click.option(
    "--protos",
    multiple=True,
    type=_PATH,
    metavar="PATH",
    help="Read the types from proto files, folders of them, or a file of descriptors instead of the server. "
    "Repeatable.",
)
@proto_path_option()
@click.option("--allow-unknown-fields", is_flag=True, help="Ignore fields of the request that its message lacks.")
@click.option("--emit-defaults", is_flag=True, help="Also print fields that have their default value.")
@click.option("--proto-names", is_flag=True, help="Print fields by their names in the proto, not in lowerCamelCase.")
@click.option(
    "--pretty/--compact",
    "is_pretty",
    default=None,
    help="Print a message on several lines or on one.  [default: several in a terminal]",
)
@click.option("--json", "wants_json", is_flag=True, help="Print one JSON object with messages, status and metadata.")
@click.option("-v", "--verbose", is_flag=True, help="Also print the method and the initial metadata, on stderr.")
def call(target: str, method: str, data: str | None, **options: Any) -> None:
    """Call METHOD of the server at TARGET and print each response message as JSON.

    TARGET is HOST:PORT, or https://HOST:PORT for TLS. METHOD is pkg.Service/Method, or its end if that is unambiguous.
    The types come from the server's reflection, or from --protos. Without -d, the request is an empty message, or a
    stream without messages.

    Messages go to stdout; the status, trailing metadata and `google.rpc` details go to stderr.

    Exit codes: 0 the status is OK; 1 it is another status; 2 no call was made: invalid data, unknown method, or
    unreachable server; 130 Ctrl-C, which cancels the call.
    """
    quieten_grpc()
    from sdk.cli.rpc.connection import connect
    from sdk.cli.rpc.error_details import with_error_details
    from sdk.cli.rpc.json_messages import JsonCodec
    from sdk.cli.rpc.symbols import as_method, find_method

    local = _local_schema(options)
    connection = connect(target, options)
    with connection.client:
        descriptor, descriptors = find_method(local or _server_schema(connection), method)
        messages = JsonCodec(
            with_error_details(descriptors.pool),
            emit_defaults=options["emit_defaults"],
            proto_names=options["proto_names"],
            allow_unknown_fields=options["allow_unknown_fields"],
        )
        called = as_method(descriptor)
        requests = _requests(data, called, messages)
        is_ok = _call(connection, called, requests, messages, options, descriptors.pool)
    if not is_ok:
        raise click.exceptions.Exit(1)


def _local_schema(options: dict[str, Any]) -> Schema | None:
    if not options["protos"]:
        if options["proto_path"]:
            raise click.UsageError("-I needs --protos.")
        return None
    from sdk.cli.rpc.schemas import FileSchema

    return FileSchema(options["protos"], options["proto_path"], "--protos")


def _server_schema(connection: ServerConnection) -> Schema:
    from sdk.cli.rpc.schemas import ServerSchema

    return ServerSchema(connection, "Give its protos or descriptors with --protos PATH.")


def _requests(data: str | None, method: Method, messages: JsonCodec) -> Iterator[Message]:
    """Return the request messages. All are read before the call, except those of a stream from standard input."""
    from sdk.cli.rpc.json_messages import check_required
    from sdk.cli.rpc.requests import STDIN, given_messages, is_terminal_input, messages_from_stdin

    if data in STDIN and is_terminal_input():
        click.echo(click.style("Type messages as JSON; press Ctrl-D to end the stream.", dim=True), err=True)

    def read(value: Any) -> Message:
        return messages.read(value, method.request)

    if method.cardinality.client_streaming:
        return messages_from_stdin(read) if data in STDIN else iter(given_messages(data, read))
    given = given_messages(data, read)
    if len(given) > 1:
        raise click.BadParameter(f"{method.path[1:]} takes one message, not {len(given)}.", param_hint="-d")
    if not given:
        given = [method.request()]
        check_required(given[0], "-d")
    return iter(given)


def _call(
    connection: ServerConnection,
    method: Method,
    requests: Iterator[Message],
    messages: JsonCodec,
    options: dict[str, Any],
    pool: Any,
) -> bool:
    """Make the call, print the response, and return whether the call succeeded."""
    from sdk.cli.rpc.client_call import ClientCall
    from sdk.cli.rpc.outcome import as_json, as_lines, metadata_lines
    from sdk.cli.rpc.web_call import WebClientCall

    def show_initial_metadata(initial: Any) -> None:
        for line in (click.style("Initial metadata:", bold=True), *metadata_lines(initial)):
            click.echo(line, err=True)

    arguments: Any = {name: options[name] for name in ("timeout", "request_id", "model_id") if options[name]}
    if options["verbose"]:
        kind = method.cardinality.value.replace("_", "-")
        click.echo(f"Calling {method.path[1:]} ({kind}) at {connection.target}", err=True)
    started = show_initial_metadata if options["verbose"] else None
    client_call: ClientCall | WebClientCall
    if options["protocol"] == "grpc":
        client_call = ClientCall(connection.client, method, requests, arguments, started)
    else:
        client_call = WebClientCall(connection.target, options["protocol"], method, requests, options, pool, started)
    shown: list[Any] = []
    write = shown.append if options["wants_json"] else _writer(messages, options["is_pretty"])
    for message in client_call.responses():
        write(messages.as_dict(message) if options["wants_json"] else message)
    outcome = client_call.outcome
    if options["wants_json"]:
        from sdk.cli.rpc.json_messages import dumps

        click.echo(dumps(as_json(outcome, shown, messages), indent=2))
    else:
        for line in (*as_lines(outcome, messages), *_hints(connection, method, outcome, options)):
            click.echo(line, err=True)
    return outcome.is_ok


def _hints(
    connection: ServerConnection, method: Method, outcome: CallOutcome, options: dict[str, Any]
) -> Iterator[str]:
    """Yield the remedy for the status that the ingress returns for a call without an application."""
    if options["application"] is not None or not outcome.details.startswith(_NO_APPLICATION):
        return
    from sdk.cli.rpc.listing import applications

    service = method.path.split("/")[1]
    serving: list[str] = []
    with contextlib.suppress(ServerError):  # the hint is optional; the status was shown
        serving += (name for name, services in applications(connection).items() if service in services)
    if serving:
        yield f"Give --application: {service} is served by {', '.join(serving)}."


def _writer(messages: JsonCodec, is_pretty: bool | None) -> Callable[[Any], None]:
    is_terminal = sys.stdout.isatty()
    indent = 2 if (is_terminal if is_pretty is None else is_pretty) else None
    if not is_terminal or os.environ.get("NO_COLOR"):
        return lambda message: click.echo(messages.write(message, indent=indent))
    from rich.console import Console

    console = Console()
    return lambda message: console.print_json(messages.write(message), indent=indent)
