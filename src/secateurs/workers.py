"""What worker processes owe the process that started them."""

import os
import threading
import time
from functools import cache

__all__ = ["end_with"]


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)  # the locks that it held are the system's to open


@cache  # once a process, however many tasks it is given
def end_with(parent: int) -> None:
    """Let this process live no longer than its parent, however that ends.

    Where the system never gives a process another parent (Windows), nothing happens.

    Args:
        parent: id of the process that started this one.
    """
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()
