"""Run decorated classes on Ray Serve, behind the ingress. Only here and in ``sdk.testing`` is ``ray.serve`` used."""
