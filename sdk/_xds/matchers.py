"""Pieces of Envoy's matchers that look at a request's headers."""

from __future__ import annotations

from sdk._gen import envoy_pb2 as pb
from sdk._xds.packing import pack

Predicate = pb.Matcher.MatcherList.Predicate


def header_input(header: str) -> pb.XdsTypedExtensionConfig:
    """Returns what gives a matcher the value of a header; several values come joined by commas."""
    return pb.XdsTypedExtensionConfig(
        name=header, typed_config=pack(pb.HttpRequestHeaderMatchInput(header_name=header))
    )


def header_matches(header: str, regex: str) -> pb.Matcher.MatcherList.Predicate:
    """Returns what is true when the whole value of a header matches, and false when there is no such header."""
    return Predicate(
        single_predicate=Predicate.SinglePredicate(
            input=header_input(header),
            value_match=pb.XdsStringMatcher(
                safe_regex=pb.XdsRegexMatcher(google_re2=pb.XdsRegexMatcher.GoogleRE2(), regex=regex)
            ),
        )
    )
