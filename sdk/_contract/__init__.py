"""The rules that a decorated class must follow to fit the proto services of its generated bases."""
