"""The comments of a file whose services are in several deployments."""

from __future__ import annotations

import itertools

from google.protobuf.descriptor_pb2 import FileDescriptorProto, SourceCodeInfo

from sdk._ingress.builtin.reflection import _Files


def test_comments_are_the_same_in_whatever_order_deployments_come() -> None:
    file = FileDescriptorProto(name="shop.proto", package="shop", syntax="proto3")
    of_services = []
    for number in range(3):
        file.service.add(name=f"Shop{number}")
    for number in range(3):
        described = FileDescriptorProto()
        described.CopyFrom(file)
        described.source_code_info.location.add(path=[6, number], span=[0, 0, 0], leading_comments=f" {number}\n")
        of_services.append(described.SerializeToString())
    found = set()
    for order in itertools.permutations(of_services):
        files = _Files()
        for each in order:
            files.add([FileDescriptorProto.FromString(each)])
        found.add(files.comments["shop.proto"].SerializeToString())
    (comments,) = found
    assert [place.leading_comments for place in SourceCodeInfo.FromString(comments).location] == [
        " 0\n",
        " 1\n",
        " 2\n",
    ]
