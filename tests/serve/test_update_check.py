"""Checks of an application before it replaces the running version; they need no cluster."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto
from user_defined_protos_pb2 import (
    ImageClass,
    ImageData,
    UserDefinedMessage,
    UserDefinedMessage2,
    UserDefinedResponse,
    UserDefinedResponse2,
)
from user_defined_protos_sdk import (
    IMAGE_CLASSIFICATION_SERVICE,
    ImageClassificationServiceBase,
    ImageClassificationServiceHandle,
    UserDefinedServiceBase,
)

from sdk import grpc_deployment
from sdk._protos.descriptors import with_imports
from sdk._serve.deployed_classes import deployed_classes
from sdk._serve.update_check import check_classes, check_update
from sdk._xds.snapshot import Application, Deployment, Snapshot
from sdk.errors import BreakingChangeError, DefinitionError

SERVICE = "userdefinedprotos.ImageClassificationService"
IMAGE = "userdefinedprotos.ImageData"


@grpc_deployment
class Classifier(ImageClassificationServiceBase):
    async def Predict(self, request: ImageData) -> ImageClass:
        return ImageClass()


def files(*, type_: FieldDescriptorProto.Type.ValueType | None = None) -> bytes:
    """Return an earlier version of the guide's proto, with another type for the URL of an image."""
    found = with_imports([IMAGE_CLASSIFICATION_SERVICE.file])
    (message,) = (each for each in found.file[0].message_type if each.name == "ImageData")
    if type_ is not None:
        message.field[0].type = type_
    return found.SerializeToString()


SAME = files()
BROKEN = files(type_=FieldDescriptorProto.TYPE_BOOL)


def check(
    *deployments: Deployment,
    sets: dict[str, bytes] | None = None,
    running: tuple[str, ...] = ("D", "E"),
    allow_breaking: bool = False,
    others: tuple[Application, ...] = (),
    route_by_service: bool = False,
    application: Any = None,
) -> None:
    known = (Application("app", deployments),) if deployments else ()
    snapshot = Snapshot(1, (*known, *others), route_by_service)
    fetch = (sets or {}).get
    check_update("app", application or Classifier.bind(), snapshot, running, fetch, allow_breaking=allow_breaking)


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    messages: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            assert record.levelno == logging.WARNING
            messages.append(record.getMessage())

    handler = Handler()
    logging.getLogger("sdk.serve").addHandler(handler)
    yield messages
    logging.getLogger("sdk.serve").removeHandler(handler)


def deployment(name: str = "D", digest: str = "1", *services: str) -> Deployment:
    return Deployment(name, services or (SERVICE,), (), digest)


def test_classes_that_changed_after_they_were_decorated_are_checked_again() -> None:
    class Changed(Classifier):
        pass

    class Other(Classifier):
        def __init__(self, changed: Any) -> None:
            pass

    application = grpc_deployment(Other).bind(grpc_deployment(expose=False)(Changed).bind())
    check_classes(application)
    Changed.Predict = None  # type: ignore[assignment]
    Other.Predict = lambda self: ImageClass()  # type: ignore[assignment,misc]
    with pytest.raises(DefinitionError) as raised:
        check_classes(application)
    assert str(raised.value).splitlines()[0] == "Changed, Other do not fit their services: 2 problems"
    assert [(problem.rule, problem.subject) for problem in raised.value.problems] == [
        ("not-callable", "Changed.Predict"),
        ("parameters", "Other.Predict"),
    ]


CHANGE = (
    f"{IMAGE}.url (1): `bool` became `string`: the two are encoded differently (user_defined_protos.proto)"
    " → keep `bool`, or give the new field another number and reserve 1"
)


def test_an_update_that_breaks_clients_is_rejected(warnings: list[str]) -> None:
    with pytest.raises(BreakingChangeError) as raised:
        check(deployment(), sets={"1": BROKEN})
    assert str(raised.value) == (
        "Application 'app' was not updated: 1 change would break clients of the running version\n"
        f"  - {CHANGE}\n"
        "To update it anyway, pass `allow_breaking=True` or `sdk run --allow-breaking`."
    )
    assert warnings == []


def test_an_allowed_breaking_update_is_logged(warnings: list[str]) -> None:
    check(deployment(), sets={"1": BROKEN}, allow_breaking=True)
    assert warnings == [
        f"application 'app' is updated with changes that break clients of the running version:\n  - error: {CHANGE}"
    ]


def test_changes_that_clients_may_notice_are_logged(warnings: list[str]) -> None:
    old = with_imports([IMAGE_CLASSIFICATION_SERVICE.file])
    old.file[0].service[1].method[0].options.idempotency_level = 2
    check(deployment(), sets={"1": old.SerializeToString()})
    line = IMAGE_CLASSIFICATION_SERVICE.methods[0].line
    assert warnings == [
        "application 'app' is updated with changes that clients may notice:\n"
        f"  - warning: {SERVICE}.Predict: `IDEMPOTENT` became `IDEMPOTENCY_UNKNOWN`: clients continue to retry failed"
        f" calls (user_defined_protos.proto:{line}) → keep `option idempotency_level = IDEMPOTENT;` and its guarantee"
    ]


def test_a_removed_service_is_a_breaking_change() -> None:
    other = "userdefinedprotos.UserDefinedService"
    with pytest.raises(BreakingChangeError) as raised:
        check(deployment(), deployment("E", "1", other), sets={"1": SAME})
    (change,) = raised.value.changes
    assert (change.rule, change.path) == ("service-removed", other)


class Front(UserDefinedServiceBase):
    def __init__(self, classifier: ImageClassificationServiceHandle) -> None:
        """Takes a typed handle."""

    def __call__(self, request: UserDefinedMessage) -> UserDefinedResponse:
        return UserDefinedResponse()

    def Multiplexing(self, request: UserDefinedMessage2) -> UserDefinedResponse2:
        return UserDefinedResponse2()

    def Streaming(self, request: UserDefinedMessage) -> Iterator[UserDefinedResponse]:
        yield UserDefinedResponse()


def test_a_deployment_behind_a_typed_handle_counts_as_served() -> None:
    application = grpc_deployment(Front).bind(Classifier.bind())
    assert [cls.__name__ for cls in deployed_classes(application)] == ["Classifier", "Front"]
    check(deployment("D"), sets={"1": SAME}, application=application)
    with pytest.raises(BreakingChangeError):
        check(deployment("D", "2"), sets={"2": BROKEN}, application=application)


def test_a_service_that_is_no_longer_exposed_is_a_breaking_change() -> None:
    hidden = Classifier.options(expose=False).bind()
    for application in (hidden, grpc_deployment(Front).bind(hidden)):
        with pytest.raises(BreakingChangeError) as raised:
            check(deployment("D"), sets={"1": SAME}, application=application)
        (change,) = raised.value.changes
        assert (change.rule, change.path) == ("service-removed", SERVICE)


def test_deployments_from_different_protos_are_each_compared() -> None:
    with pytest.raises(BreakingChangeError) as raised:
        check(deployment("D", "1"), deployment("E", "2"), sets={"1": SAME, "2": BROKEN})
    assert len(raised.value.changes) == 1
    with pytest.raises(BreakingChangeError) as raised:
        check(deployment("D", "2"), deployment("E", "2"), sets={"2": BROKEN})
    assert len(raised.value.changes) == 1, "a change of both deployments is reported once"


@pytest.mark.parametrize(
    "options",
    [
        {"sets": {"1": SAME}},
        {"sets": {"1": BROKEN}, "running": ()},
        {"sets": {"1": BROKEN}, "running": ("another",)},
    ],
    ids=["it is the same", "nothing runs", "an earlier version had that deployment"],
)
def test_a_compatible_update(options: Any, warnings: list[str]) -> None:
    check(deployment(), **options)
    check(others=(Application("other", (deployment("D", "2"),)),), sets={"2": BROKEN})
    assert warnings == []


@pytest.mark.parametrize("digest", ["", "1"])
def test_a_deployment_without_descriptors_is_named(digest: str, warnings: list[str]) -> None:
    check(deployment("D", digest))
    assert warnings == [
        "deployment 'D' of application 'app' has not announced its services: the update is not compared with it"
    ]


def test_a_warning_about_a_service_of_two_applications_with_route_by_service(warnings: list[str]) -> None:
    others = (
        Application("a", (deployment(),)),
        Application("b", (deployment("D", "", "other.Service"),)),
        Application("c", (deployment("D", "", "other.Service"), deployment("E"))),
    )
    check(others=others)
    assert warnings == []
    check(others=others, route_by_service=True)
    assert warnings == [
        f"application 'app' serves {SERVICE}, and so does 'a', 'c': calls of it without `application` metadata end with"
        " NOT_FOUND, although route_by_service is on → clients must name the application"
    ]
