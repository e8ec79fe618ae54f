"""``sdk dashboards``: a Grafana dashboard and alert rules for what Ray's own dashboards do not have."""
