"""Where a cluster finds models: addresses of buckets and volumes, and how folders get there.

Thread: any.
"""

from __future__ import annotations

import shlex

STORAGE = "storage"
"""The folder of a bundle that is copied there."""


def upload_command(address: str) -> str:
    """What copies the bundle's `storage/` to an address."""
    scheme, _, place = address.partition("://")
    if scheme == "gs":
        return f"gcloud storage cp --recursive {STORAGE}/* {shlex.quote(address + '/')}"
    if scheme == "s3":
        return f"aws s3 cp --recursive {STORAGE}/ {shlex.quote(address + '/')}"
    claim, _, below = place.partition("/")
    return f"kubectl cp {STORAGE}/. {shlex.quote('POD:/mnt/' + below)}    # POD mounts the claim {claim} at /mnt"
