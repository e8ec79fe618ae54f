"""`bind` replaces bound deployments by the generated handles that parameters are annotated with."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Optional

import pytest
from probe_pb2 import Ask, Told
from probe_sdk import AsyncProbeBase, AsyncProbeHandle, SyncProbeBase, SyncProbeHandle
from ray import serve
from ray.serve.handle import DeploymentHandle

from sdk import handle
from sdk.deployment import grpc_deployment
from sdk.errors import ApplicationError, OptionsError

if TYPE_CHECKING:
    import probe_sdk
    from probe_sdk import AsyncProbeHandle as Renamed


class Answers:
    def Unary(self, request: Ask) -> Told:
        return Told()

    def Down(self, request: Ask) -> Any:
        yield Told()

    def Up(self, requests: Any) -> Told:
        return Told()

    def Both(self, requests: Any) -> Any:
        yield Told()


@grpc_deployment(expose=False)
class Inner(Answers, AsyncProbeBase):  # type: ignore[misc]
    pass


@grpc_deployment(expose=False)
class OtherInner(Answers, SyncProbeBase):  # type: ignore[misc]
    pass


class Outer(Answers, AsyncProbeBase):  # type: ignore[misc]
    pass


def given(cls: Any, *args: Any, **kwargs: Any) -> Any:
    """Return the constructor arguments of a class, with bound deployments instead of Ray Serve's handles."""
    deployment = grpc_deployment(cls).bind(*args, **kwargs)._bound_deployment
    return [*deployment.init_args, *deployment.init_kwargs.values()]


def test_a_parameter_of_a_generated_handle_gets_one() -> None:
    class One(Outer):
        def __init__(
            self, inner: AsyncProbeHandle, name: str, raw: DeploymentHandle[Any], untyped, *, key: Any
        ) -> None:  # type: ignore[no-untyped-def]
            pass

    bound = Inner.bind()
    one, name, raw, untyped, key = given(One, bound, "x", bound, bound, key=bound)
    assert type(one) is AsyncProbeHandle
    assert one._handle is bound
    assert (name, raw, untyped, key) == ("x", bound, bound, bound)


def test_options_and_keywords_make_no_difference() -> None:
    class One(Outer):
        def __init__(self, *, inner: AsyncProbeHandle) -> None:
            pass

    deployment: Any = grpc_deployment(One).options(num_replicas=2).bind(inner=Inner.options(name="x").bind())
    assert type(deployment._bound_deployment.init_kwargs["inner"]) is AsyncProbeHandle


def test_unions_containers_and_variable_parameters() -> None:
    class Many(Outer):
        def __init__(
            self,
            optional: Optional[AsyncProbeHandle],  # noqa: UP045
            new: AsyncProbeHandle | None,
            either: AsyncProbeHandle | SyncProbeHandle,
            listed: list[AsyncProbeHandle],
            mapped: Mapping[str, AsyncProbeHandle],
            annotated: Annotated[AsyncProbeHandle, "x"],
            *rest: SyncProbeHandle,
            **named: SyncProbeHandle,
        ) -> None:
            pass

    inner, other = Inner.bind(), OtherInner.bind()
    got = given(Many, inner, None, other, [inner], {"a": inner}, inner, other, b=other)
    optional, new, either, listed, mapped, annotated, rest, named = got
    assert [type(each) for each in (optional, either, annotated, rest, named)] == [
        AsyncProbeHandle,
        SyncProbeHandle,
        AsyncProbeHandle,
        SyncProbeHandle,
        SyncProbeHandle,
    ]
    assert new is None
    assert (type(listed[0]), type(mapped["a"])) == (AsyncProbeHandle, AsyncProbeHandle)


def test_names_that_only_type_checkers_know() -> None:
    class Hidden(Outer):
        def __init__(self, inner: probe_sdk.AsyncProbeHandle, optional: probe_sdk.AsyncProbeHandle | None) -> None:
            pass

    assert [type(each) for each in given(Hidden, Inner.bind(), Inner.bind())] == [AsyncProbeHandle, AsyncProbeHandle]


def test_another_name_that_only_type_checkers_know_is_found_too() -> None:
    class Hidden(Outer):
        def __init__(self, inner: Renamed) -> None:
            pass

    assert [type(each) for each in given(Hidden, Inner.bind())] == [AsyncProbeHandle]


def test_a_handle_of_another_service_is_an_error() -> None:
    class One(Outer):
        def __init__(self, inner: AsyncProbeHandle | None) -> None:
            pass

    text = r"^One\.bind: inner is annotated AsyncProbeHandle, but OtherInner serves probe\.SyncProbe$"
    with pytest.raises(OptionsError, match=text):
        given(One, OtherInner.bind())


def test_a_plain_deployment_may_be_an_argument_and_may_take_one() -> None:
    class One(Outer):
        def __init__(self, inner: AsyncProbeHandle) -> None:
            pass

    plain = serve.deployment(Outer).bind()
    assert type(given(One, handle(plain))[0]) is AsyncProbeHandle
    taking: Any = serve.deployment(One).bind(AsyncProbeHandle(Inner.bind()))
    assert type(taking._bound_deployment.init_args[0]) is AsyncProbeHandle


def test_two_deployments_of_one_service_are_found_through_handles() -> None:
    class One(Outer):
        def __init__(self, inner: AsyncProbeHandle) -> None:
            pass

    with pytest.raises(ApplicationError, match=r"service 'probe\.AsyncProbe' is served by two deployments"):
        given(One, Inner.options(expose=True).bind())


def test_ray_serve_finds_the_deployments_in_the_handles() -> None:
    from ray.serve._private.build_app import build_app

    class One(Outer):
        def __init__(self, inner: AsyncProbeHandle, more: list[AsyncProbeHandle]) -> None:
            pass

    inner = Inner.bind()
    app: Any = grpc_deployment(One).bind(inner, [inner])
    built = build_app(app, name="a")
    assert [deployment.name for deployment in built.deployments] == ["Inner", "One"]
    first, (second,) = built.deployments[1].init_args  # type: ignore[misc]
    assert [type(each._handle) for each in (first, second)] == [DeploymentHandle] * 2
    assert type(pickle.loads(pickle.dumps(first))._handle) is DeploymentHandle
