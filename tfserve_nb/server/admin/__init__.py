"""The admin API: its handlers, and the client that stands in for a core on another server."""
