"""How many requests of this process may wait for a job: half of its threads always stay free for those who do not."""

import threading
from functools import cache

from shared.settings import settings


@cache
def wait_limit() -> threading.BoundedSemaphore:
    """A room for each request that may wait; whoever takes one gives it back."""
    return threading.BoundedSemaphore(max(1, settings().api_threads // 2))
