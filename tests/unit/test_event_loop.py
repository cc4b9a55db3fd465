"""The server's loop: who is on it."""

from __future__ import annotations

import asyncio
import threading

from tfserve_nb.server.event_loop import is_on_loop, new_loop, run_in_thread


def test_only_the_thread_of_a_server_is_on_its_loop() -> None:
    found: dict[str, bool] = {"before": is_on_loop()}

    async def serve() -> None:
        found["loop"] = is_on_loop()
        found["beside"] = await run_in_thread("tfserve-beside", is_on_loop)

    def run() -> None:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(serve())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()

    assert found | {"after": is_on_loop()} == {"before": False, "loop": True, "beside": False, "after": False}
