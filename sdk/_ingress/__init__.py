"""The way in: a controller that knows the replicas, and on every node a proxy that runs and configures Envoy."""
