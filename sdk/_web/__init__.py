"""Calls over gRPC-Web, Connect, and JSON over HTTP, for browsers and curl, on the wire server's connections."""
