"""``sdk top``: the calls of the last seconds, by method and by replica."""
