"""The Envoy process of one node: command line, supervisor, certificates and drain."""
