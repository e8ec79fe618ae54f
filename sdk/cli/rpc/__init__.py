"""What ``sdk call`` and ``sdk services`` are made of: a server, what describes it, messages as JSON, one call."""
