"""What a Compose file of ours may hold.

Reference: the Compose specification, compose-spec.json.
"""

from __future__ import annotations

from .shape import Keys, Shape

_SERVICE: Shape = {
    "image!": str,
    "entrypoint": [str],
    "command": [str],
    "user": str,
    "read_only": bool,
    "ports": [str],
    "volumes": [str],
    "tmpfs": [str],
    "cap_drop": [str],
    "security_opt": [str],
    "restart": frozenset({"no", "always", "on-failure", "unless-stopped"}),
    "stop_grace_period": str,
    "healthcheck": {"test!": [str], "interval": str, "timeout": str, "retries": int, "start_period": str},
}

COMPOSE: Shape = {"name": str, "services!": Keys(_SERVICE)}
