"""Where trials run: in worker processes, or in this one. A sweep takes anything with `submit`."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


class Serial(Executor):
    """Runs every call in this process, at once: for debuggers, and for the smallest sweeps."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class ProcessPool(ProcessPoolExecutor):
    """Spawned single-threaded workers that never outlive this process, however it ends.

    Every worker watches the reading end of a pipe whose writing end only this process holds. The
    operating system closes it when the process dies, SIGKILL included; leaving the `with` block by
    an exception closes it too, so that Ctrl-C does not wait for the running trials.
    """

    def __init__(self, workers: int) -> None:
        context = get_context("spawn")
        self._leash, self._hand = context.Pipe(duplex=False)
        super().__init__(
            workers, mp_context=context, initializer=_start_worker, initargs=(self._leash,)
        )

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        if exc_type is not None:
            self._hand.close()
        self.shutdown(cancel_futures=True)
        self._hand.close()
        self._leash.close()


def executor(workers: int) -> Executor:
    """A pool of `workers` processes, or this process where `workers` is 0."""
    return ProcessPool(workers) if workers else Serial()


class Workers:
    """`count` workers for several sweeps: started when first needed, and anew after they broke.

    Studies share what their workers have imported. A context manager: leaving it ends the workers.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool: Executor | None = None

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *exception: Any) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.__exit__(*exception)

    @contextmanager
    def pool(self) -> Iterator[Executor]:
        """The executor; an exception in the block ends the workers, with all they are doing."""
        if self._pool is None:
            self._pool = executor(self.count)
        try:
            yield self._pool
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise


def _start_worker(leash: Connection) -> None:
    # One thread each: the workers already fill the machine, and sums do not depend on its size.
    for variable in _THREAD_VARIABLES:
        os.environ.setdefault(variable, "1")
    # Ctrl-C reaches the whole process group; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, args=(leash,), daemon=True).start()


def _exit_with_parent(leash: Connection) -> None:
    # Nothing is ever sent: this end becomes ready when the other one is closed.
    wait([leash])
    # Not sys.exit, which would only end this thread.
    os._exit(1)
