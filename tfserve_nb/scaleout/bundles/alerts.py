"""Alerts on TensorFlow Serving's metrics, which `tfserve-nb serve` has too, and what a file of rules may hold.

Thread: any.

Reference: Prometheus' documentation, "Alerting rules".
"""

from __future__ import annotations

from typing import Any  # YAML

from .shape import Keys, Shape

REQUESTS, LATENCY = ":tensorflow:serving:request_count", ":tensorflow:serving:request_latency"
METRICS = (REQUESTS, f"{LATENCY}_bucket")
"""The series that the alerts read."""

RULES: Shape = {
    "groups!": [
        {
            "name!": str,
            "interval": str,
            "rules!": [{"alert!": str, "expr!": str, "for": str, "labels": Keys(str), "annotations": Keys(str)}],
        }
    ]
}

MAX_ERRORS = 0.01
SLOW_S = 1.0


def alerts(name: str) -> dict[str, Any]:
    """Rules for errors and slow requests, whose limits are starting points.

    Args:
        name: what is served.
    """
    failed = f'sum by (model_name) (rate({REQUESTS}{{status!="OK"}}[5m]))'
    all_of_them = f"sum by (model_name) (rate({REQUESTS}[5m]))"
    tail = f"histogram_quantile(0.99, sum by (model_name, le) (rate({LATENCY}_bucket[5m])))"
    return {
        "groups": [
            {
                "name": f"serving {name}",
                "rules": [
                    {
                        "alert": "ServingErrors",
                        "expr": f"{failed} / {all_of_them} > {MAX_ERRORS}",
                        "for": "5m",
                        "labels": {"severity": "page"},
                        "annotations": {"summary": "More than 1 % of the requests to {{ $labels.model_name }} fail"},
                    },
                    {
                        "alert": "ServingSlow",
                        # The histogram counts microseconds.
                        "expr": f"{tail} > {SLOW_S * 1e6:.0f}",
                        "for": "5m",
                        "labels": {"severity": "warn"},
                        "annotations": {"summary": "p99 of {{ $labels.model_name }} is above one second"},
                    },
                ],
            }
        ]
    }
