"""The errors that the SDK raises, in one tree.

Exception
├── SdkError                     base of the SDK's own errors
│   ├── DefinitionError          a class does not fit its proto service      → fix the class
│   ├── BreakingChangeError      an update would break running clients      → keep what they use, or allow it
│   ├── OptionsError             a deployment or ingress option is wrong     → fix the option
│   ├── StaleCodeError           generated code and ``_pb2`` disagree        → run ``sdk codegen``
│   ├── ApplicationError         the argument is not a valid application     → fix the import path
│   ├── ClusterError             Ray or Ray Serve can't be reached or failed → look at the cluster
│   ├── IngressError             Envoy can't start or the port is taken      → look at the node
│   ├── ServerError              a gRPC server does not list its services    → look at the server, or its address
│   ├── RuleError                a validation rule of a proto is wrong       → fix the proto
│   ├── InvalidResponseError     a response breaks the rules of its proto    → fix the handler
│   └── MissingExtraError        a package of an extra is not installed      → install the extra
└── RpcError                     a handler ends its call with a status       → the client handles it
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from sdk._status import STATUS_DETAILS, error_details, read_status

if TYPE_CHECKING:
    import grpc
    from google.protobuf.any_pb2 import Any as AnyMessage
    from google.protobuf.message import Message

M = TypeVar("M", bound="Message")


class SdkError(Exception):
    """Base of the SDK's own errors. The message can be shown to a user without a traceback.

    Example:
        ::

            try:
                sdk.run(app)
            except sdk.SdkError as error:
                sys.exit(f"error: {error}")
    """


@dataclass(frozen=True, slots=True)
class Problem:
    """One way in which a class does not fit its proto service.

    Attributes:
        rule: Short stable name of the rule, ``"missing-rpc"``.
        subject: The class, or one of its RPCs, ``"Greeter.SayHello"``.
        message: The problem: what the code says and what the proto says.
        remedy: How to fix it.
        code_location: ``"app.py:12"``, or ``""`` when the source is not available.
        proto_location: ``"greet.proto:7"``, or ``""``.

    Example:
        >>> str(Problem("abstract", "Greeter.SayHello", "`SayHello` is abstract", "write it", "app.py:3"))
        'Greeter.SayHello: `SayHello` is abstract (app.py:3) → write it'
    """

    rule: str
    subject: str
    message: str
    remedy: str
    code_location: str = ""
    proto_location: str = ""

    @property
    def severity(self) -> Literal["error", "warning"]:
        """``"warning"`` for a rule that is checked with ``--strict`` only, else ``"error"``."""
        return "warning" if self.rule == "unannotated" else "error"

    def __str__(self) -> str:
        where = ", ".join(place for place in (self.code_location, self.proto_location) if place)
        return f"{self.subject}: {self.message}" + (f" ({where})" if where else "") + f" → {self.remedy}"


class DefinitionError(SdkError):
    """A decorated class does not fit its proto service. The author of the class must act.

    Attributes:
        class_name: Name of the class; several names are separated by commas.
        problems: Every problem found, in the order of the proto.
    """

    def __init__(self, class_name: str, problems: Sequence[Problem]) -> None:
        self.class_name = class_name
        self.problems = tuple(problems)
        count = f"{len(self.problems)} problem" + ("s" if len(self.problems) != 1 else "")
        what = "do not fit their services" if "," in class_name else "does not fit its service"
        super().__init__("\n".join([f"{class_name} {what}: {count}", *(f"  - {p}" for p in self.problems)]))

    def __reduce__(self) -> tuple[type[DefinitionError], tuple[str, tuple[Problem, ...]]]:
        return type(self), (self.class_name, self.problems)


@dataclass(frozen=True, slots=True)
class Change:
    """One change between two versions of a service that affects clients of the old one.

    Attributes:
        rule: Short stable name of the rule, ``"field-type"``.
        severity: ``"error"`` when calls fail or data is misread; ``"warning"`` when only some data is lost, or when the
            effect depends on the client.
        path: The changed element: ``"greet.Greeter.SayHello"``, ``"greet.HelloRequest.name (1)"``.
        message: The change and its effect.
        remedy: How to avoid it.
        old: The old version in proto syntax; ``""`` when the element was added.
        new: The new version in proto syntax; ``""`` when the element was removed.
        proto_location: Location in the new version, ``"greet.proto:7"``, or ``""``.
    """

    rule: str
    severity: Literal["error", "warning"]
    path: str
    message: str
    remedy: str
    old: str = ""
    new: str = ""
    proto_location: str = ""

    def __str__(self) -> str:
        where = f" ({self.proto_location})" if self.proto_location else ""
        return f"{self.path}: {self.message}{where} → {self.remedy}"


class BreakingChangeError(SdkError):
    """An update would break clients of the running version. Nothing was changed. The author of the proto must act.

    Attributes:
        application: Name of the application.
        changes: Every change that breaks clients, in the order of the old protos.
    """

    def __init__(self, application: str, changes: Sequence[Change]) -> None:
        self.application = application
        self.changes = tuple(changes)
        count = f"{len(self.changes)} change" + ("s" if len(self.changes) != 1 else "")
        super().__init__(
            "\n".join(
                [
                    f"Application {application!r} was not updated: {count} would break clients of the running version",
                    *(f"  - {change}" for change in self.changes),
                    "To update it anyway, pass `allow_breaking=True` or `sdk run --allow-breaking`.",
                ]
            )
        )

    def __reduce__(self) -> tuple[type[BreakingChangeError], tuple[str, tuple[Change, ...]]]:
        return type(self), (self.application, self.changes)


class OptionsError(SdkError):
    """An option has an unknown name or a value that Ray Serve or the ingress refuses. Fix the option."""


class StaleCodeError(SdkError):
    """Generated code does not belong to the loaded ``_pb2`` module. Run ``sdk codegen`` again.

    Attributes:
        service: Full name of the service.
        proto: Path of the proto file as protoc knows it.
        generated: Fingerprint in the generated ``_sdk`` module.
        loaded: Fingerprint of the loaded ``_pb2`` module.
    """

    def __init__(self, service: str, proto: str, generated: str, loaded: str) -> None:
        self.service, self.proto, self.generated, self.loaded = service, proto, generated, loaded
        super().__init__(
            f"The generated code of service {service} is stale: its _sdk module was generated from another version of "
            f"{proto} (fingerprint {generated[:12]}) than the loaded _pb2 module ({loaded[:12]}). "
            f"Regenerate both: run `sdk codegen` on the folder that holds {proto}."
        )

    def __reduce__(self) -> tuple[type[StaleCodeError], tuple[str, str, str, str]]:
        return type(self), (self.service, self.proto, self.generated, self.loaded)


class ApplicationError(SdkError):
    """The argument is not an application, can't be imported, or has deployments that do not fit together.

    The caller must fix the import path, or the ``bind`` calls that made the application.
    """


class ClusterError(SdkError):
    """Ray or Ray Serve can't be reached, or refused the request. The operator of the cluster must act."""


class IngressError(SdkError):
    """The ingress can't serve: Envoy is missing, the port is taken, or Envoy rejected its configuration.

    The operator of the node must act.
    """


class ServerError(SdkError):
    """A gRPC server can't be reached, or does not list its services. Check its address, or ask its operator."""


class RuleError(SdkError):
    """A validation rule of a proto can't be compiled or evaluated. The author of the proto must act.

    A call that it ends has the status INTERNAL, because the request may be right.

    Attributes:
        message_type: Full name of the message that was checked; the rule may be that of a message in its fields.
        reason: What is wrong.
    """

    def __init__(self, message_type: str, reason: str) -> None:
        self.message_type, self.reason = message_type, reason
        super().__init__(f"a validation rule of {message_type} does not work: {reason}")

    def __reduce__(self) -> tuple[type[RuleError], tuple[str, str]]:
        return type(self), (self.message_type, self.reason)


class InvalidResponseError(SdkError):
    """A handler's response breaks the validation rules of its proto. The author of the handler must act.

    The call ends INTERNAL, because the client can't do better.
    """


class MissingExtraError(SdkError, ImportError):
    """A package is missing that an extra of ``ray-grpc-sdk`` installs. The caller must install the extra.

    Args:
        user: What needs it, ``"sdk.run"``.
        package: The package that can't be imported, ``"ray"``.
        extra: The extra that brings it, ``"serve"``; empty for a package that the SDK always needs.
    """

    def __init__(self, user: str, package: str, extra: str) -> None:
        name = f"ray-grpc-sdk[{extra}]" if extra else "ray-grpc-sdk"
        super().__init__(f"{user} needs {package}, which is not installed: pip install '{name}'")
        self.user = user
        self.package = package
        self.extra = extra

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str, str]]:
        return type(self), (self.user, self.package, self.extra)


class RpcError(Exception):
    """Raised by a handler to end its call with a status. The client receives exactly this status.

    Another deployment may raise it too: the call that awaits its handle ends with the same status. See
    https://github.com/grpc/grpc/blob/master/doc/statuscodes.md and https://grpc.io/docs/guides/error/.

    Args:
        code: The status code; ``OK`` is refused.
        details: Text for ``grpc-message``; any Unicode.
        trailing_metadata: Pairs to add to the trailing metadata.
        errors: Messages with details, of ``google.rpc.error_details_pb2`` or any other. They reach the client in
            ``grpc-status-details-bin``, where ``grpc_status.rpc_status.from_call`` finds them. Trailers hold about
            6 KiB: if they do not all fit, the last ones are left out.

    Raises:
        TypeError: ``code`` is not a ``grpc.StatusCode``, or one of ``errors`` is not a protobuf message.
        ValueError: ``code`` is ``OK`` (a handler that succeeds returns instead), or ``errors`` are combined with
            ``grpc-status-details-bin`` in the metadata.

    Example:
        >>> import grpc
        >>> raise RpcError(grpc.StatusCode.NOT_FOUND, "no user 7")
        Traceback (most recent call last):
        ...
        sdk.errors.RpcError: NOT_FOUND: no user 7

        >>> from google.rpc.error_details_pb2 import BadRequest
        >>> wrong = BadRequest.FieldViolation(field="name", description="is empty")
        >>> bad = BadRequest(field_violations=[wrong])
        >>> error = RpcError(grpc.StatusCode.INVALID_ARGUMENT, "bad name", errors=[bad])
        >>> error.find(BadRequest).field_violations[0].field
        'name'
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        details: str = "",
        trailing_metadata: Iterable[tuple[str, str | bytes]] = (),
        *,
        errors: Iterable[Message] = (),
    ) -> None:
        number = getattr(code, "value", None)
        if not isinstance(number, tuple):
            raise TypeError(f"RpcError needs a member of grpc.StatusCode, not {code!r}")
        if number[0] == 0:
            raise ValueError("RpcError can't have the code OK; return from the handler instead")
        self.code = code
        self.details = str(details)
        self.trailing_metadata = tuple(trailing_metadata)
        self.errors = tuple(errors)
        for error in self.errors:
            if not hasattr(error, "DESCRIPTOR") or isinstance(error, type):
                raise TypeError(
                    "errors of an RpcError are protobuf messages, such as those of google.rpc.error_details_pb2, "
                    f"not {error!r}"
                )
        if self.errors and any(key == STATUS_DETAILS for key, _ in self.trailing_metadata):
            raise ValueError(f"give an RpcError either errors or {STATUS_DETAILS!r}, which has errors already")
        super().__init__(f"{code.name}: {details}")

    @classmethod
    def from_grpc(cls, error: grpc.RpcError) -> RpcError:
        """Convert the error of a call to another server, to inspect it or to end the handler's own call with it.

        Args:
            error: The error that the call raised, of ``grpc`` or of ``grpc.aio``.

        Raises:
            TypeError: ``error`` was not raised by a call.

        Example:
            ::

                except grpc.RpcError as error:
                    raise sdk.RpcError.from_grpc(error) from error
        """
        code, details, metadata = read_status(error)
        # Drop the metadata of that call itself: the call of a handler that raises the error has its own.
        kept = tuple(pair for pair in metadata if pair[0] != "request_id" and not pair[0].startswith("grpc-"))
        return RpcError(code, details, kept, errors=error_details(error))

    def find(self, kind: type[M]) -> M | None:
        """Return the first message of a class among ``errors``, or None.

        Args:
            kind: The message class.
        """
        for error in self.packed_errors():
            if error.Is(kind.DESCRIPTOR):  # type: ignore[arg-type]  # the stub of Is knows one of two descriptor classes
                found = kind()
                error.Unpack(found)
                return found
        return None

    def packed_errors(self) -> list[AnyMessage]:
        """Return ``errors``, each as a ``google.protobuf.Any``."""
        from google.protobuf.any_pb2 import Any as AnyMessage

        packed = []
        for error in self.errors:
            if isinstance(error, AnyMessage):
                packed.append(error)
            else:
                packed.append(AnyMessage())
                packed[-1].Pack(error)
        return packed

    def __reduce__(self) -> tuple[Any, ...]:
        # Packed, because the deployment that unpickles the error may not have the classes of its messages.
        errors = self.packed_errors()
        own = ("code", "details", "trailing_metadata", "errors")
        more = {name: value for name, value in vars(self).items() if name not in own}
        return _restore, (type(self), self.code, self.details, self.trailing_metadata, errors), more or None


def _restore(cls: type[RpcError], code: Any, details: str, metadata: Any, errors: Any) -> RpcError:
    error = cls.__new__(cls)  # not cls(): the constructor of a subclass may take other arguments
    RpcError.__init__(error, code, details, metadata, errors=errors)
    return error
