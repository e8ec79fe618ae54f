"""``sdk console``: a page with the services of a server, a form to call each method, and the state of the cluster."""
