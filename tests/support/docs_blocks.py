"""The Python blocks and the commands of the documentation, one test each.

``tests/test_docs_run.py`` runs this file in a folder with the code generated from the ``greet`` proto, and ``app.py``
of ``docs/guides/testing.md``. A block runs with the names that its page takes for granted, which ``GIVEN`` has, and
calls a server of this process where the page has one on port 9000.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import importlib
import inspect
import io
import os
import re
import shlex
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest
from click.testing import CliRunner
from ray import serve

import sdk.testing
from sdk.cli.main import main
from sdk.inference import Arrays, InferenceRepository, Model

ROOT = Path(os.environ["DOCS_ROOT"])
#: Pages whose blocks run elsewhere, with the place.
ELSEWHERE = {
    "README.md": "tests/packaging/test_wheel.py, which serves with Ray",
    "docs/guides/getting-started.md": "tests/cli/test_newcomer.py, as the commands of the page",
    "docs/guides/testing.md": "test_it.py of this folder",
    "docs/guides/validation.md": "tests/validation/test_guide.py",
    "docs/reference/checks.md": "tests/contract/test_checks_document.py",
    "examples/vision/README.md": "tests/inference/test_triton_client.py, such a call, with another protobuf",
}
# Blocks that need packages of another environment, with the place of a call like theirs.
_OTHER_ENVIRONMENT = {
    ("docs/guides/inference.md", 1): "tests/inference/test_triton_client.py: it needs another protobuf"
}
_TOML = re.compile(r"^    \[tool\.sdk\.codegen\]\n(?:    .*\n)+", re.MULTILINE)
# A block, and what it prints where the page shows that in a block of text right below.
_FENCED = re.compile(r"^```python\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)


def _blocks() -> Iterator[Any]:
    pages = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/**/*.md"))]
    pages += sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("examples/*/README.md"))
    for page in pages:
        for number, (code, printed) in enumerate(_FENCED.findall((ROOT / page).read_text())):
            if page not in ELSEWHERE and (page, number) not in _OTHER_ENVIRONMENT:
                yield pytest.param(page, number, code, printed, id=f"{page}:{number}")


class Token(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpc has no types for it
    """An interceptor that the page on the context names."""

    def __init__(self, secret: str) -> None:
        self.secret = secret

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        return await continuation(details)


class Runs:
    """The names that blocks take for granted, and the servers that they call.

    Args:
        servers: Where servers are entered.
    """

    def __init__(self, servers: contextlib.ExitStack) -> None:
        self._servers = servers
        self.messages = importlib.import_module("greet_pb2")
        self.generated = importlib.import_module("greet_sdk")
        self.greeter = importlib.import_module("app").Greeter
        self.target = "localhost:9000"

    def serve(self, application: Any, name: str = "default", **options: Any) -> sdk.testing.Server:
        """Serve an application at the target of the block."""
        server = self._servers.enter_context(sdk.testing.serve({name: application}, **options))
        self.target = server.target
        return server

    def definition(self) -> dict[str, Any]:
        """Names of a block that defines a ``Greeter`` whose methods it leaves out: a base has them."""

        class GreeterBase(self.generated.GreeterBase):  # type: ignore[misc,name-defined]
            async def SayHello(self, request: Any) -> Any:
                return self.messages.HelloReply(text=f"Hello {request.name}")

        GreeterBase.SayHello.__annotations__ = {
            "request": self.messages.HelloRequest,
            "return": self.messages.HelloReply,
        }
        GreeterBase.messages = self.messages
        return {"GreeterBase": GreeterBase, "grpc_deployment": sdk.grpc_deployment, "grpc": grpc, "sdk": sdk}

    def client(self, kind: str) -> dict[str, Any]:
        """Names of a block that calls through ``client``."""
        server = self.serve(self.greeter.bind("Hello"), "greeter")
        client = getattr(self.generated, kind)
        return {"client": client(server.target), "HelloRequest": self.messages.HelloRequest, "grpc": grpc, "sdk": sdk}


def _context(runs: Runs) -> dict[str, Any]:
    embedder = _example("batching", "embedder_pb2")
    names = {name: getattr(embedder, name) for name in ("Text", "Embedding")}
    return runs.definition() | {
        **names,
        "serve": serve,
        "ServicerContext": sdk.context.ServicerContext,
        "Token": Token,
        "aio_server_interceptor": lambda: Token("other"),
    }


def _composition(runs: Runs) -> dict[str, Any]:
    app = _example("composition", "library_app")

    class LibraryBase(app.LibraryBase):  # type: ignore[misc,name-defined]  # has the method that the page leaves out
        async def Read(self, request: Any) -> Any:
            yield app.Page()

    LibraryBase.Read.__annotations__ = app.Library.Read.__annotations__
    generated: Any = importlib.import_module("library_sdk")
    generated.LibraryBase = LibraryBase
    return {"Ranker": app.Ranker}


def _inference_repository(runs: Runs) -> dict[str, Any]:
    return {
        "asyncio": asyncio,
        "InferenceRepository": InferenceRepository,
        "Model": Model,
        "Sequence": Sequence,
        "Translator": lambda folder: SimpleNamespace(inputs=(), outputs=(), infer=lambda inputs: inputs),
        "grpc_deployment": sdk.grpc_deployment,
    }


def _scaled(runs: Runs) -> dict[str, Any]:
    scope: dict[str, Any] = {"__name__": "model_app"}
    exec(_FENCED.findall((ROOT / "docs/guides/inference.md").read_text())[0][0], scope)
    runs.serve(scope["app"])
    return {}


async def _look_up(name: str) -> str:
    return f"Hello {name}"


def _web(runs: Runs) -> dict[str, Any]:
    """``sdk.run`` needs Ray: the test server takes the same application and options."""
    stand_in = SimpleNamespace(
        run=lambda application, options: runs.serve(application, options=options), GrpcOptions=sdk.GrpcOptions
    )
    return {"sdk": stand_in, "app": runs.greeter.bind()}


def _security(runs: Runs) -> dict[str, Any]:
    base = runs.definition()["GreeterBase"]
    sys.modules["greeter_pb2"] = runs.messages
    sys.modules["greeter_sdk"] = SimpleNamespace(GreeterBase=base)  # type: ignore[assignment]
    return {}


def _greeter(runs: Runs) -> dict[str, Any]:
    runs.serve(runs.greeter.bind("Hello"), "greeter")
    return {}


def _calls(kind: str) -> Callable[[Runs], dict[str, Any]]:
    return lambda runs: runs.client(kind)


#: The names that a block takes for granted, by its page and number.
GIVEN: dict[tuple[str, int], Callable[[Runs], dict[str, Any]]] = {
    ("docs/guides/clients.md", 0): _greeter,
    ("docs/guides/clients.md", 1): _greeter,
    ("docs/guides/clients.md", 2): _calls("GreeterClient"),
    ("docs/guides/clients.md", 3): _calls("GreeterSyncClient"),
    ("docs/guides/clients.md", 4): _calls("GreeterSyncClient"),
    ("docs/guides/composition.md", 0): _composition,
    **{("docs/guides/context.md", number): _context for number in range(1, 6)},
    ("docs/guides/inference.md", 2): _scaled,
    ("docs/guides/inference.md", 3): lambda runs: {"serve": serve, "Arrays": Arrays, "np": np},
    ("docs/guides/inference.md", 4): _inference_repository,
    ("docs/guides/tracing.md", 1): lambda runs: {"look_up": _look_up},
    ("docs/guides/web.md", 0): _web,
    ("docs/operations/scaling.md", 0): Runs.definition,
    ("docs/operations/security.md", 0): _security,
}
#: What a block raises by design.
_RAISES = {("docs/guides/context.md", 3): sdk.RpcError}


def _example(folder: str, module: str) -> Any:
    sys.path.append(str(ROOT / "examples" / folder))
    return importlib.import_module(module)


@pytest.mark.parametrize(("page", "number", "code", "printed"), list(_blocks()))
def test_block(page: str, number: int, code: str, printed: str) -> None:
    module = f"block_{number}"
    with contextlib.ExitStack() as servers:
        runs = Runs(servers)
        scope = GIVEN.get((page, number), lambda _: {})(runs)
        scope["__name__"] = module
        output = servers.enter_context(contextlib.redirect_stdout(io.StringIO()))
        if (page, number) in _RAISES:
            servers.enter_context(pytest.raises(_RAISES[page, number]))
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        compiled = compile(code.replace("localhost:9000", runs.target), page, "exec", flags, dont_inherit=True)
        done = eval(compiled, scope)
        if inspect.iscoroutine(done):
            asyncio.run(done)
        assert output.getvalue() == printed or not printed


def test_a_servicer_that_is_migrated_as_the_guide_says_serves() -> None:
    page = (ROOT / "docs/guides/from-grpc-aio.md").read_text()
    (diff,) = re.findall(r"^    ```diff\n(.*?)^    ```$", page, re.MULTILINE | re.DOTALL)
    after = [line[5:] for line in diff.splitlines() if line[4:5] in ("+", " ")]
    scope: dict[str, Any] = {"__name__": "migrated"}
    exec("\n".join([*after, "app = Greeter.bind()"]), scope)
    with sdk.testing.serve(scope["app"]) as server:
        stub = importlib.import_module("greet_pb2_grpc").GreeterStub(server.channel())
        with pytest.raises(grpc.RpcError) as raised:
            stub.SayHello(scope["HelloRequest"]())
    assert (raised.value.code(), raised.value.details()) == (grpc.StatusCode.INVALID_ARGUMENT, "no name")


#: Commands of the pages that do not run here, by their beginning, with the place or the reason.
COMMANDS_ELSEWHERE = {
    "sdk run": "tests/cli/run: it needs Ray",
    "sdk status": "tests/cli/test_status.py: it needs Ray",
    "sdk top": "tests/cli/top: it needs Ray",
    "sdk logs": "tests/cli/logs: it needs Ray",
    "sdk console": "tests/cli/console: it serves until Ctrl-C",
    "sdk check app:Greeter shop.app:app": "tests/cli/check, as the next ones: they need a module, a commit and files",
    "sdk check app --against git:": "tests/cli/check",
    "sdk check app --against ../main": "tests/cli/check",
    "sdk check app --against released.binpb": "tests/cli/check",
}


def _commands() -> list[Any]:
    found: dict[str, str] = {}
    for page in ("README.md", *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/**/*.md"))):
        for line in re.findall(r"^    (sdk \S.*)$", (ROOT / page).read_text(), re.MULTILINE):
            found.setdefault(re.split(r" +[#|>] ", line)[0].strip(), page)
    return [
        pytest.param(command, id=command)
        for command in found
        if not any(command.startswith(prefix) for prefix in COMMANDS_ELSEWHERE)
    ]


@pytest.fixture(scope="module")
def folder() -> Iterator[tuple[Path, str]]:
    """A project as the pages have it, and the target of its server."""
    here = Path.cwd()
    (here / "third_party").mkdir()
    (here / "src/myapp").mkdir(parents=True)
    (toml,) = _TOML.findall((ROOT / "docs/guides/codegen.md").read_text())
    (here / "pyproject.toml").write_text(textwrap.dedent(toml))
    with sdk.testing.serve({"greeter": importlib.import_module("app").Greeter.bind()}) as server:
        yield here, server.target


@pytest.mark.parametrize("command", _commands())
def test_command(command: str, folder: tuple[Path, str]) -> None:
    words = shlex.split(command.replace("localhost:9000/shop", "localhost:9000/greeter"))
    done = CliRunner().invoke(main, [word.replace("localhost:9000", folder[1]) for word in words[1:]])
    assert done.exit_code == 0, done.output


def test_each_given_name_is_of_a_block() -> None:
    blocks = {tuple(each.values[:2]) for each in _blocks()}
    assert {*GIVEN, *_RAISES} <= blocks
    assert all((ROOT / page).exists() for page in ELSEWHERE)
