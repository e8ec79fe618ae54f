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
from sdk._xds.subscription import Difference, Response, Subscription, VersionedResources


def resources(version: int, **texts: str) -> VersionedResources:
    return VersionedResources(version, {name: Resource("t", (text.encode(),)) for name, text in texts.items()})


def request(nonce: str = "", *names: str, less: str = "", has: str = "", error: str = "") -> pb.DeltaDiscoveryRequest:
    message = pb.DeltaDiscoveryRequest(
        response_nonce=nonce,
        resource_names_subscribe=names,
        resource_names_unsubscribe=less,
        initial_resource_versions=dict.fromkeys(has, "1"),
    )
    if error:
        message.error_detail.message = error
    return message


def values(response: Response | None) -> list[str] | None:
    """Return the values of a response, and the names of what it removes."""
    if response is None:
        return None
    changed, removed = response.difference
    return [*(resource.value.decode() for resource in changed.values()), *(f"-{name}" for name in sorted(removed))]


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
    subscription.receive(request("", "a", has="ab"))
    assert subscription.next_response(None) is None


@pytest.mark.parametrize("names", [(), ("*",)])
def test_ack(clusters: Subscription, names: tuple[str, ...]) -> None:
    now = resources(7, a="1", b="2")
    clusters.receive(request("", *names))
    response = send(clusters, now)
    assert (response.version, response.type_url, values(response)) == ("7", CLUSTER_TYPE, ["1", "2"])
    assert not clusters.is_acked(now)
    clusters.receive(request(response.nonce))
    assert clusters.is_acked(now)
    assert clusters.next_response(now) is None


def test_only_changed_clusters_are_sent(clusters: Subscription) -> None:
    clusters.receive(request())
    clusters.receive(request(send(clusters, resources(1, a="1", b="2")).nonce))
    added = send(clusters, resources(2, a="1", b="2", c="3"))
    assert (values(added), added.replaces) == (["3"], False)
    clusters.receive(request(added.nonce))
    changed = send(clusters, resources(3, a="1", b="9", c="3"))
    assert (values(changed), changed.replaces) == (["9"], True)


def test_the_last_cluster_can_be_removed(clusters: Subscription) -> None:
    clusters.receive(request())
    clusters.receive(request(send(clusters, resources(1, a="1")).nonce))
    response = send(clusters, resources(2))
    assert values(response) == ["-a"]
    clusters.receive(request(response.nonce))
    assert clusters.is_acked(resources(2))


def test_only_changed_endpoints_are_sent(endpoints: Subscription) -> None:
    endpoints.receive(request("", "a", "b"))
    response = send(endpoints, resources(1, a="1", b="2", c="3"))
    assert values(response) == ["1", "2"], "c was not subscribed to"
    endpoints.receive(request(response.nonce))
    assert values(endpoints.next_response(resources(2, a="1", b="9", c="4"))) == ["9"]


def test_endpoints_are_acked_when_all_are_subscribed(endpoints: Subscription) -> None:
    now = resources(1, a="1", b="2")
    endpoints.receive(request("", "a"))
    endpoints.receive(request(send(endpoints, now).nonce))
    assert not endpoints.is_acked(now), "Envoy has not subscribed to b yet"
    endpoints.receive(request("", "b"))
    response = send(endpoints, now)
    assert values(response) == ["2"]
    endpoints.receive(request(response.nonce))
    assert endpoints.is_acked(now)


def test_unknown_names_get_no_empty_response(endpoints: Subscription) -> None:
    endpoints.receive(request("", "a"))
    assert endpoints.next_response(resources(1)) is None
    assert values(endpoints.next_response(resources(2, a="1"))) == ["1"]


def test_an_unsubscribed_resource_is_sent_again(endpoints: Subscription) -> None:
    now = resources(1, a="1", b="2")
    endpoints.receive(request("", "a", "b"))
    endpoints.receive(request(send(endpoints, now).nonce))
    endpoints.receive(request("", less="b"))
    assert endpoints.next_response(now) is None
    assert endpoints.next_response(resources(2, a="1")) is None, "Envoy has dropped it"
    endpoints.receive(request("", "b"))
    assert values(endpoints.next_response(now)) == ["2"]


def test_a_resource_that_envoy_unsubscribes_from_while_it_is_in_flight_is_sent_again(endpoints: Subscription) -> None:
    now = resources(1, a="1", b="2")
    endpoints.receive(request("", "a", "b"))
    response = send(endpoints, now)
    endpoints.receive(request("", less="b"))
    endpoints.receive(request("", "b"))
    assert endpoints.next_response(now) is None, "a response is in flight"
    endpoints.receive(request(response.nonce))
    assert values(endpoints.next_response(now)) == ["2"]


def test_names_added_by_an_ack_are_sent(endpoints: Subscription) -> None:
    now = resources(1, a="1", b="2")
    endpoints.receive(request("", "a"))
    endpoints.receive(request(send(endpoints, now).nonce, "b"))
    assert values(endpoints.next_response(now)) == ["2"]


def test_a_repeated_subscription_gets_the_resource_again(endpoints: Subscription) -> None:
    now = resources(1, a="1", b="2")
    endpoints.receive(request("", "a", "b"))
    endpoints.receive(request(send(endpoints, now).nonce))
    endpoints.receive(request("", "a"))
    assert values(endpoints.next_response(now)) == ["1"]


def test_resources_in_flight_are_sent_again_too(endpoints: Subscription) -> None:
    now = resources(1, a="1")
    endpoints.receive(request("", "a"))
    response = send(endpoints, now)
    endpoints.send_again()
    assert endpoints.next_response(now) is None, "a response is in flight"
    endpoints.receive(request(response.nonce))
    assert not endpoints.is_acked(now)
    assert values(endpoints.next_response(now)) == ["1"]


def test_one_response_is_in_flight_at_a_time(clusters: Subscription) -> None:
    clusters.receive(request())
    first = send(clusters, resources(1, a="1"))
    assert clusters.next_response(resources(2, a="2")) is None
    clusters.receive(request())
    assert clusters.next_response(resources(2, a="2")) is None, "not an answer"
    clusters.receive(request(first.nonce))
    assert values(clusters.next_response(resources(3, a="3"))) == ["3"], "2 was superseded"


def test_nack_keeps_the_previous_resources(clusters: Subscription) -> None:
    good, bad = resources(1, a="1"), resources(2, a="bad", b="2")
    clusters.receive(request())
    clusters.receive(request(send(clusters, good).nonce))
    rejected = send(clusters, bad)
    clusters.receive(request(rejected.nonce, error="invalid"))
    assert clusters.rejection == "invalid"
    assert not clusters.is_acked(bad)
    assert clusters.next_response(bad) is None, "the same resources would be rejected again"
    again = send(clusters, good)
    assert values(again) == ["1", "-b"], "Envoy may have applied a part of what it rejected"
    assert clusters.rejection is None
    clusters.receive(request(again.nonce))
    assert clusters.is_acked(good)
    assert values(clusters.next_response(resources(3, a="3"))) == ["3"]


def test_a_rejected_removal_is_sent_again(clusters: Subscription) -> None:
    both, bad = resources(1, a="1", b="1"), resources(2, a="bad")
    clusters.receive(request())
    clusters.receive(request(send(clusters, both).nonce))
    clusters.receive(request(send(clusters, bad).nonce, error="invalid"))
    assert values(clusters.next_response(resources(3, a="2"))) == ["2", "-b"]


def test_nack_of_endpoints_sends_only_what_changes(endpoints: Subscription) -> None:
    endpoints.receive(request("", "a", "b", "c"))
    endpoints.receive(request(send(endpoints, resources(1, a="old a", b="old b", c="1")).nonce))
    rejected = send(endpoints, resources(2, a="2", b="bad", c="1"))
    endpoints.receive(request(rejected.nonce, error="no"))
    assert endpoints.next_response(resources(2, a="2", b="bad", c="1")) is None
    now = resources(3, a="old a", b="old b", c="1")
    again = send(endpoints, now)
    assert values(again) == ["old a", "old b"], "a may have been applied before b was rejected"
    endpoints.receive(request(again.nonce))
    assert endpoints.is_acked(now)


def test_rejected_resources_that_envoy_unsubscribes_from_are_not_removed(endpoints: Subscription) -> None:
    endpoints.receive(request("", "a", "b"))
    rejected = send(endpoints, resources(1, a="1", b="bad"))
    endpoints.receive(request("", less="b"))
    endpoints.receive(request(rejected.nonce, error="no"))
    assert values(endpoints.next_response(resources(2, a="1"))) == ["1"]


def test_retry_after_nack(clusters: Subscription) -> None:
    now = resources(1, a="1")
    clusters.receive(request())
    clusters.receive(request(send(clusters, now).nonce, error="port taken"))
    clusters.retry()
    assert clusters.rejection is None
    clusters.receive(request(send(clusters, now).nonce))
    assert clusters.is_acked(now)


def test_a_new_stream_gets_everything_whatever_envoy_has(endpoints: Subscription) -> None:
    endpoints.receive(request("", "a", has="a"))
    assert values(endpoints.next_response(resources(1, a="1"))) == ["1"]


def test_what_envoy_has_of_an_earlier_stream_is_removed(clusters: Subscription) -> None:
    clusters.receive(request("", has="ab"))
    response = send(clusters, resources(1, a="1", c="1"))
    assert (values(response), response.replaces) == (["1", "1", "-b"], True)


def test_a_response_is_encoded_as_protobuf_does() -> None:
    cluster = pack_resource(pb.Cluster(name="c" * 300))
    pieces = Resource(ENDPOINT_TYPE, (b"\x0a\x01a", b"", b"\x12\x00"))
    sent = {"c": cluster, "Zoë": pieces, "n" * 200: Resource(ROUTE_TYPE, ())}
    encoded = Response("7", ENDPOINT_TYPE, "3", Difference(sent, frozenset("xy")), replaces=True).encode()
    response = pb.DeltaDiscoveryResponse.FromString(encoded)
    assert (response.system_version_info, response.type_url, response.nonce) == ("7", ENDPOINT_TYPE, "3")
    assert [(each.name, each.resource.type_url, each.resource.value) for each in response.resources] == [
        (name, each.type_url, each.value) for name, each in sent.items()
    ]
    assert {each.version for each in response.resources} == {"7"}
    assert response.removed_resources == ["x", "y"]
    assert pb.Cluster.FromString(response.resources[0].resource.value).name == "c" * 300
    assert pb.ClusterLoadAssignment.FromString(response.resources[1].resource.value).cluster_name == "a"
    nothing = Response("1", CLUSTER_TYPE, "1", Difference({}, frozenset()), replaces=False).encode()
    assert (
        nothing
        == pb.DeltaDiscoveryResponse(system_version_info="1", type_url=CLUSTER_TYPE, nonce="1").SerializeToString()
    )
