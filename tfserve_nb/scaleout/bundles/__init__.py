"""Bundles: a folder with everything that another kind of server needs to go on with what is served here."""
