"""The Envoy control plane: turn a routing table into xDS resources and serve them to one local Envoy.

``snapshot`` is the routing table, ``resources`` turns it into Envoy's resources, ``ads_server`` sends those over a unix
socket and waits for the ACK, and ``bootstrap`` is the file that Envoy starts from.

The xDS protocol: https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol
Envoy's API: https://www.envoyproxy.io/docs/envoy/latest/api-v3/api
"""
