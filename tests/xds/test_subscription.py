from __future__ import annotations

import pytest

from sdk._gen import envoy_pb2 as pb
from sdk._xds.packing import (
    CLUSTER_TYPE,
    ENDPOINT_TYPE,
    FILTER_TYPE,
    LISTENER_TYPE,
    ROUTE_TYPE,
    Resource,
    pack_resource,
)
from sdk._xds.subscription import RequestKind, Response, Subscription, VersionedResources


def resources(version: int, **texts: str) -> VersionedResources:
    return VersionedResources(version, {name: Resource("t", (text.encode(),)) for name, text in texts.items()})


def request(nonce: str = "", *names: str, error: str = "") -> pb.DiscoveryRequest:
    message = pb.DiscoveryRequest(response_nonce=nonce, resource_names=names)
    if error:
        message.error_detail.message = error
    return message


def values(response: Response | None) -> list[str] | None:
    return None if response is None else [resource.value.decode() for resource in response.resources]


def send(subscription: Subscription, now: VersionedResources) -> Response:
    response = subscription.next_response(now)
    assert response is not None
    return response


@pytest.fixture
def clusters() -> Subscription:
    return Subscription(CLUSTER_TYPE)


@pytest.fixture
def endpoints() -> Subscription:
    return Subscription(ENDPOINT_TYPE)


def test_nothing_is_sent_before_a_subscription(clusters: Subscription) -> None:
    assert clusters.next_response(resources(1, a="1")) is None
    assert not clusters.is_acked(resources(1, a="1"))


@pytest.mark.parametrize("type_url", [CLUSTER_TYPE, ENDPOINT_TYPE, FILTER_TYPE, LISTENER_TYPE, ROUTE_TYPE])
def test_nothing_is_sent_before_the_first_publish(type_url: str) -> None:
    subscription = Subscription(type_url)
    assert subscription.receive(request("", "a")) is RequestKind.SUBSCRIBED
    assert subscription.next_response(None) is None


def test_ack(clusters: Subscription) -> None:
    now = resources(7, a="1", b="2")
    assert clusters.receive(request()) is RequestKind.SUBSCRIBED
    assert clusters.wildcard
    response = send(clusters, now)
    assert (response.version_info, response.type_url, values(response)) == ("7", CLUSTER_TYPE, ["1", "2"])
    assert not clusters.is_acked(now)
    assert clusters.receive(request(response.nonce)) is RequestKind.ACK
    assert clusters.is_acked(now)
    assert clusters.next_response(now) is None


def test_a_response_contains_all_clusters(clusters: Subscription) -> None:
    clusters.receive(request())
    clusters.receive(request(send(clusters, resources(1, a="1", b="2")).nonce))
    assert values(clusters.next_response(resources(2, a="1", b="3"))) == ["1", "3"]


def test_the_last_cluster_can_be_removed(clusters: Subscription) -> None:
    clusters.receive(request())
    clusters.receive(request(send(clusters, resources(1, a="1")).nonce))
    response = send(clusters, resources(2))
    assert values(response) == []
    clusters.receive(request(response.nonce))
    assert clusters.is_acked(resources(2))


def test_an_empty_cluster_response_is_sent(clusters: Subscription) -> None:
    clusters.receive(request())
    assert values(clusters.next_response(resources(1))) == [], "without it Envoy would not subscribe to listeners"


def test_only_changed_endpoints_are_sent(endpoints: Subscription) -> None:
    endpoints.receive(request("", "a", "b"))
    response = send(endpoints, resources(1, a="1", b="2", c="3"))
    assert values(response) == ["1", "2"], "c was not subscribed to"
    endpoints.receive(request(response.nonce, "a", "b"))
    assert values(endpoints.next_response(resources(2, a="1", b="9", c="4"))) == ["9"]


def test_endpoints_are_acked_when_all_are_subscribed(endpoints: Subscription) -> None:
    now = resources(1, a="1", b="2")
    endpoints.receive(request("", "a"))
    endpoints.receive(request(send(endpoints, now).nonce, "a"))
    assert not endpoints.is_acked(now), "Envoy has not subscribed to b yet"
    nonce = endpoints._nonce
    assert endpoints.receive(request(nonce, "a", "b")) is RequestKind.SUBSCRIBED
    response = send(endpoints, now)
    assert values(response) == ["2"]
    endpoints.receive(request(response.nonce, "a", "b"))
    assert endpoints.is_acked(now)


def test_unknown_names_get_no_empty_response(endpoints: Subscription) -> None:
    endpoints.receive(request("", "a"))
    assert endpoints.next_response(resources(1)) is None
    assert values(endpoints.next_response(resources(2, a="1"))) == ["1"]


def test_an_unsubscribed_resource_is_sent_again(endpoints: Subscription) -> None:
    now = resources(1, a="1", b="2")
    endpoints.receive(request("", "a", "b"))
    nonce = send(endpoints, now).nonce
    endpoints.receive(request(nonce, "a", "b"))
    assert endpoints.receive(request(nonce, "a")) is RequestKind.SUBSCRIBED
    assert endpoints.next_response(now) is None
    endpoints.receive(request(nonce, "a", "b"))
    assert values(endpoints.next_response(now)) == ["2"]


def test_names_added_by_an_ack_are_sent(endpoints: Subscription) -> None:
    now = resources(1, a="1", b="2")
    endpoints.receive(request("", "a"))
    assert endpoints.receive(request(send(endpoints, now).nonce, "a", "b")) is RequestKind.ACK
    assert values(endpoints.next_response(now)) == ["2"]


def test_a_repeated_subscription_gets_the_resources_again(endpoints: Subscription) -> None:
    now = resources(1, a="1")
    endpoints.receive(request("", "a"))
    nonce = send(endpoints, now).nonce
    endpoints.receive(request(nonce, "a"))
    assert endpoints.receive(request(nonce, "a")) is RequestKind.REPEATED
    assert values(endpoints.next_response(now)) == ["1"]


def test_stale_nonce_is_ignored(clusters: Subscription) -> None:
    clusters.receive(request())
    first = send(clusters, resources(1, a="1"))
    clusters.receive(request(first.nonce))
    second = send(clusters, resources(2, a="2"))
    assert clusters.receive(request(first.nonce)) is RequestKind.STALE
    assert clusters.receive(request(first.nonce, error="late")) is RequestKind.STALE
    assert clusters.rejection is None
    assert not clusters.is_acked(resources(2, a="2"))
    assert clusters.receive(request(second.nonce)) is RequestKind.ACK


def test_one_response_is_in_flight_at_a_time(clusters: Subscription) -> None:
    clusters.receive(request())
    first = send(clusters, resources(1, a="1"))
    assert clusters.next_response(resources(2, a="2")) is None
    clusters.receive(request(first.nonce))
    assert values(clusters.next_response(resources(3, a="3"))) == ["3"], "2 was superseded"


def test_nack_keeps_the_previous_resources(clusters: Subscription) -> None:
    good, bad = resources(1, a="1"), resources(2, a="bad")
    clusters.receive(request())
    clusters.receive(request(send(clusters, good).nonce))
    rejected = send(clusters, bad)
    assert clusters.receive(request(rejected.nonce, error="invalid")) is RequestKind.NACK
    assert clusters.rejection == "invalid"
    assert not clusters.is_acked(bad)
    assert clusters.next_response(bad) is None, "the same resources would be rejected again"
    again = send(clusters, good)
    assert values(again) == ["1"], "Envoy may have applied a part of what it rejected"
    assert clusters.rejection is None
    clusters.receive(request(again.nonce))
    assert clusters.is_acked(good)
    assert values(clusters.next_response(resources(3, a="3"))) == ["3"]


def test_nack_of_endpoints_sends_only_what_changes(endpoints: Subscription) -> None:
    endpoints.receive(request("", "a", "b", "c"))
    endpoints.receive(request(send(endpoints, resources(1, a="old a", b="old b", c="1")).nonce, "a", "b", "c"))
    rejected = send(endpoints, resources(2, a="2", b="bad", c="1"))
    endpoints.receive(request(rejected.nonce, "a", "b", "c", error="no"))
    assert endpoints.next_response(resources(2, a="2", b="bad", c="1")) is None
    now = resources(3, a="old a", b="old b", c="1")
    again = send(endpoints, now)
    assert values(again) == ["old a", "old b"], "a may have been applied before b was rejected"
    endpoints.receive(request(again.nonce, "a", "b", "c"))
    assert endpoints.is_acked(now)


def test_retry_after_nack(clusters: Subscription) -> None:
    now = resources(1, a="1")
    clusters.receive(request())
    clusters.receive(request(send(clusters, now).nonce, error="port taken"))
    clusters.retry()
    assert clusters.rejection is None
    clusters.receive(request(send(clusters, now).nonce))
    assert clusters.is_acked(now)


def test_a_new_stream_gets_everything_whatever_version_envoy_sends(endpoints: Subscription) -> None:
    first = pb.DiscoveryRequest(version_info="41", resource_names=["a"])
    assert endpoints.receive(first) is RequestKind.SUBSCRIBED
    assert values(endpoints.next_response(resources(41, a="1"))) == ["1"]


def test_explicit_wildcard(endpoints: Subscription) -> None:
    endpoints.receive(request("", "*"))
    assert values(endpoints.next_response(resources(1, a="1", b="2"))) == ["1", "2"]


def test_a_response_is_encoded_as_protobuf_does() -> None:
    cluster = pack_resource(pb.Cluster(name="c" * 300))
    pieces = Resource(ENDPOINT_TYPE, (b"\x0a\x01a", b"", b"\x12\x00"))
    sent = (cluster, pieces, Resource(ROUTE_TYPE, ()))
    response = pb.DiscoveryResponse.FromString(Response("7", ENDPOINT_TYPE, "3", sent).encode())
    assert (response.version_info, response.type_url, response.nonce) == ("7", ENDPOINT_TYPE, "3")
    assert [(each.type_url, each.value) for each in response.resources] == [
        (each.type_url, each.value) for each in sent
    ]
    assert pb.Cluster.FromString(response.resources[0].value).name == "c" * 300
    assert pb.ClusterLoadAssignment.FromString(response.resources[1].value).cluster_name == "a"
    assert pb.DiscoveryResponse.FromString(Response("1", CLUSTER_TYPE, "1", ()).encode()) == pb.DiscoveryResponse(
        version_info="1", type_url=CLUSTER_TYPE, nonce="1"
    )
