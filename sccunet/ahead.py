"""Does work ahead of its use, in threads."""

import collections
import concurrent.futures
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Result = TypeVar("Result")


def in_order(
    function: Callable[..., Result], arguments: Iterable[tuple], parallel: int
) -> Iterator[Result]:
    """Yields a function's results in the order of its arguments, while it computes the next ones.

    Args:
      function: called in threads of its own if `parallel` is over 1.
      arguments: iterated over in the caller's thread; at most `parallel` ahead of the results.
      parallel: number of calls at the same time.
    """
    if parallel < 2:
        for each in arguments:
            yield function(*each)
        return
    waiting = collections.deque()
    pool = concurrent.futures.ThreadPoolExecutor(parallel)
    try:
        for each in arguments:
            waiting.append(pool.submit(function, *each))
            if len(waiting) > parallel:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
