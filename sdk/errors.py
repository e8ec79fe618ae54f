"""Every error the SDK raises, in one tree.

Exception
├── SdkError                     base of what the SDK itself raises
│   ├── DefinitionError          a class does not fit its proto service      → fix the class
│   ├── OptionsError             a deployment or ingress option is wrong     → fix the option
│   ├── StaleCodeError           generated code and ``_pb2`` disagree        → run ``sdk codegen``
│   ├── ApplicationError         what was given is not an application        → fix the import path
│   ├── ClusterError             Ray or Ray Serve can't be reached or failed → look at the cluster
│   └── IngressError             Envoy or the port can't be had              → look at the node
└── RpcError                     a handler ends its call with a status       → the client reads it
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import grpc
    from google.protobuf.any_pb2 import Any as AnyMessage
    from google.protobuf.message import Message

M = TypeVar("M", bound="Message")

#: The trailer that holds a ``google.rpc.Status``.
STATUS_DETAILS = "grpc-status-details-bin"


class SdkError(Exception):
    """Base of every error that the SDK itself raises. Its text is fit to be shown without a traceback."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One way in which a class does not fit its proto service.

    Attributes:
        rule: Short stable name of the rule, ``"missing-rpc"``.
        subject: What it is about, ``"Greeter.SayHello"``.
        message: What is wrong: what the code says and what the proto says.
        remedy: What to do about it.
        code_location: ``"app.py:12"``, or ``""`` when the source is not known.
        proto_location: ``"greet.proto:7"``, or ``""``.
    """

    rule: str
    subject: str
    message: str
    remedy: str
    code_location: str = ""
    proto_location: str = ""

    def __str__(self) -> str:
        where = ", ".join(place for place in (self.code_location, self.proto_location) if place)
        return f"{self.subject}: {self.message}" + (f" ({where})" if where else "") + f" → {self.remedy}"


class DefinitionError(SdkError):
    """A decorated class does not fit its proto service. The author of the class must act.

    Attributes:
        problems: Every problem found, in the order of the proto.
    """

    def __init__(self, class_name: str, problems: Sequence[Problem]) -> None:
        self.class_name = class_name
        self.problems = tuple(problems)
        count = f"{len(self.problems)} problem" + ("s" if len(self.problems) != 1 else "")
        super().__init__(
            "\n".join([f"{class_name} does not fit its service: {count}", *(f"  - {p}" for p in self.problems)])
        )

    def __reduce__(self) -> tuple[type[DefinitionError], tuple[str, tuple[Problem, ...]]]:
        return type(self), (self.class_name, self.problems)


class OptionsError(SdkError):
    """An option has an unknown name or a value that Ray Serve or the ingress refuses. Its author must act."""


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
    """What was given is no application, can't be imported, or holds deployments that do not fit together.

    Whoever named or bound it must act.
    """


class ClusterError(SdkError):
    """Ray or Ray Serve can't be reached, or refused. Whoever runs the cluster must act."""


class IngressError(SdkError):
    """The ingress can't serve: Envoy is missing, the port is taken, or Envoy refused its configuration."""


class RpcError(Exception):
    """Raised by a handler to end its call with a status. The client sees exactly this.

    It may be raised in another deployment too: the call that awaits its handle ends with it.

    Args:
        code: The status code; ``OK`` is refused.
        details: Text for ``grpc-message``; any unicode.
        trailing_metadata: Pairs to add to the trailers.
        errors: Messages that say more, those of ``google.rpc.error_details_pb2`` or any other. They reach the client
            in ``grpc-status-details-bin``, where ``grpc_status.rpc_status.from_call`` finds them. Trailers hold about
            6 KiB: where they don't all fit, the last ones are left out.

    Raises:
        TypeError: ``code`` is no ``grpc.StatusCode``, or one of ``errors`` is no protobuf message.
        ValueError: ``code`` is ``OK`` (a handler that succeeds returns instead), or ``errors`` come together with
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
            raise ValueError("RpcError cannot carry the code OK; return from the handler instead")
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
            raise ValueError(f"give an RpcError either errors or {STATUS_DETAILS!r}, which holds errors already")
        super().__init__(f"{code.name}: {details}")

    def find(self, kind: type[M]) -> M | None:
        """Return the first of ``errors`` that is a message of this class, or None.

        Args:
            kind: A message class.
        """
        for error in self.packed_errors():
            if error.Is(kind.DESCRIPTOR):  # type: ignore[arg-type]  # its stub knows one of two descriptor classes
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
        # Packed: whoever gets the error, in another deployment, need not have the classes of its messages.
        errors = self.packed_errors()
        own = ("code", "details", "trailing_metadata", "errors")
        more = {name: value for name, value in vars(self).items() if name not in own}
        return _restore, (type(self), self.code, self.details, self.trailing_metadata, errors), more or None


def _restore(cls: type[RpcError], code: Any, details: str, metadata: Any, errors: Any) -> RpcError:
    error = cls.__new__(cls)  # a subclass may have a constructor of its own
    RpcError.__init__(error, code, details, metadata, errors=errors)
    return error
