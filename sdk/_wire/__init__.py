"""gRPC over HTTP/1.1 with trailers: the server inside a replica. Envoy is its only client."""
