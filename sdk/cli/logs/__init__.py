"""``sdk logs``: the log lines of every node of the cluster."""
