"""The job on this machine's cores."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection

from lottery.errors import LotteryError
from lottery.preprocess.shards import Result, Task, run

Map = Callable[[Sequence[Task]], Generator[Result, None, None]]


@contextmanager
def open_engine(workers: int | None) -> Iterator[Map]:
    """Maps tasks over ``workers`` processes, by default one a core; results as they complete.

    Raises :class:`LotteryError` when a process is killed.
    """
    workers = workers or len(os.sched_getaffinity(0))
    # Not forked from this process, which has threads.
    context = multiprocessing.get_context("forkserver")
    # Imported once, where the workers are forked from.
    context.set_forkserver_preload(["__main__", run.__module__])
    with ProcessPoolExecutor(workers, context, initializer=_prepare) as pool:

        def results(tasks: Sequence[Task]) -> Generator[Result, None, None]:
            futures = [pool.submit(run, task) for task in tasks]
            try:
                for future in as_completed(futures):
                    yield future.result()
            except BrokenProcessPool:
                raise LotteryError(
                    "a worker process was killed (out of memory?); the same command goes on from "
                    f"here, perhaps with fewer than workers={workers}"
                ) from None
            finally:
                for future in futures:
                    future.cancel()

        yield results


def _prepare() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to handle
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A pool's processes would wait for ever for the tasks of a parent that was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
