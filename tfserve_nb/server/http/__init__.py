"""HTTP/1.1 on llhttp: connections that carry Tornado's delegates, and a short way for requests that need none."""
