"""What a server process needs beside its protocols: event loop, threads, garbage collection, internal errors."""
