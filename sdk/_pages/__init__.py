"""The pages that the ingress serves: the documentation at ``/docs``."""
