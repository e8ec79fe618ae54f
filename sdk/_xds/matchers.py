"""Matcher inputs and predicates on request headers."""

from __future__ import annotations

from sdk._gen import envoy_pb2 as pb
from sdk._xds.packing import pack

Predicate = pb.Matcher.MatcherList.Predicate


def header_input(header: str) -> pb.XdsTypedExtensionConfig:
    """Return the matcher input for the value of a header. Several values are joined by commas."""
    return pb.XdsTypedExtensionConfig(
        name=header, typed_config=pack(pb.HttpRequestHeaderMatchInput(header_name=header))
    )


def header_matches(header: str, regex: str) -> pb.Matcher.MatcherList.Predicate:
    """Return a predicate that matches the whole value of a header. It is false if the header is absent."""
    return Predicate(
        single_predicate=Predicate.SinglePredicate(
            input=header_input(header),
            value_match=pb.XdsStringMatcher(
                safe_regex=pb.XdsRegexMatcher(google_re2=pb.XdsRegexMatcher.GoogleRE2(), regex=regex)
            ),
        )
    )
