"""The way from one deployment to another: replicas of a deployment, the choice of one, connections and calls."""
