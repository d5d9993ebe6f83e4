"""Several requests to a server at once, their answers in the order in which they come."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

Answer = TypeVar("Answer")
LOOK_S = 5.0  # how often a waiting caller is told that nothing came
_ENDED = object()  # a thread has nothing left to do


def at_once(
    asked: Sequence[int],
    ask: Callable[[int], Answer],
    threads: int,
    waiting: Callable[[], None] = lambda: None,
) -> Iterator[tuple[int, Answer]]:
    """``(i, ask(i))`` for every ``i``, in order of arrival; ``waiting`` is called while none comes.

    Raises what the first failed ``ask`` raised, after the running ones have ended and their answers were given.
    """
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
    for i in asked:
        todo.put(i)
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            try:
                i = todo.get_nowait()
            except queue.Empty:
                break
            try:
                done.put((i, ask(i)))
            except BaseException as error:  # raised again below, in the waiting thread
                stop.set()
                done.put((None, error))
        done.put((_ENDED, None))

    working = min(threads, len(asked))
    for _ in range(working):
        threading.Thread(target=work, daemon=True).start()  # daemon threads, so that Ctrl-C takes effect at once
    failed: BaseException | None = None
    try:
        while working:
            try:
                i, outcome = done.get(timeout=LOOK_S)
            except queue.Empty:
                waiting()
                continue
            if i is _ENDED:
                working -= 1
            elif i is None:
                failed = failed or outcome
            else:
                yield i, outcome
    finally:
        stop.set()
    if failed is not None:
        raise failed
