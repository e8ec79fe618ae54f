"""The Envoy process of one node: its command, its supervisor, its certificates and its drain."""
