"""The ingress: a controller that knows all replicas, and a proxy on every node that runs and configures Envoy."""
