"""Short links as visitors meet them; `redirect` is the way from a request to its answer."""
