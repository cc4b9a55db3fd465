"""The process that a cluster on this machine belongs to: it starts Ray, and ends it when its own standard input ends.

So the cluster goes with the kernel or command that started it, however that ends, and none of Ray runs in a kernel.

Usage: python -m tfserve_nb.scaleout.ray.head, with settings as one line of JSON on standard input.

Thread: the main one.
"""

from __future__ import annotations

import json
import sys


def main() -> None:
    """Start a cluster, tell its address in a line of JSON, wait for the end of the input, end the cluster."""
    settings = json.loads(sys.stdin.readline())
    import ray

    context = ray.init(
        address="local",
        num_cpus=0,  # replicas here ask for none; Ray would start a worker for each at once, used or not
        include_dashboard=True,
        dashboard_host="127.0.0.1",
        dashboard_port=settings["dashboard_port"],
        log_to_driver=False,
        object_store_memory=settings["object_store_bytes"],
        _node_ip_address="127.0.0.1",
        _temp_dir=settings["folder"],
    )
    try:
        if not context.dashboard_url:
            raise RuntimeError("Ray's dashboard did not start")
        sys.stdout.write(json.dumps({"url": f"http://{context.dashboard_url}", "version": ray.__version__}) + "\n")
        sys.stdout.flush()
        sys.stdin.read()
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main()
