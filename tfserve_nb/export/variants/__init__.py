"""Smaller and faster forms of a version: described, written from its folder, and noted in it."""
