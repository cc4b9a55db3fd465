"""What a file of Prometheus rules may hold.

Reference: Prometheus' documentation, "Alerting rules".
"""

from __future__ import annotations

from .shape import Keys, Shape

RULES: Shape = {
    "groups!": [
        {
            "name!": str,
            "interval": str,
            "rules!": [{"alert!": str, "expr!": str, "for": str, "labels": Keys(str), "annotations": Keys(str)}],
        }
    ]
}
