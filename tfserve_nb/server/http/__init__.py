"""HTTP/1.1 on llhttp: connections that carry Tornado's delegates, and a fast path for requests that need none."""
