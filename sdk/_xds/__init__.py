"""The Envoy control plane: from an immutable routing table to what one local Envoy has acknowledged.

``snapshot`` says what is routed where, ``resources`` turns it into Envoy's configuration, ``server`` hands that to
Envoy over a unix socket and waits for the acknowledgement, ``bootstrap`` is the file that Envoy starts from.
"""
