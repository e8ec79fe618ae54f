"""gRPC over HTTP/1.1 with trailers: the server inside a replica and inside a proxy. Envoy is its only client."""
