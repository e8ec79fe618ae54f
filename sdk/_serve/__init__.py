"""The only room that imports ``ray.serve``: from a decorated class to running replicas behind the ingress."""
