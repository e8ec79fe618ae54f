"""Parts of ``sdk call`` and ``sdk services``: the connection, descriptors, messages as JSON, and the call."""
