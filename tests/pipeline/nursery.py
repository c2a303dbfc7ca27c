"""Runs `vqk` commands in forked processes and kills them: one import for any number of deaths.

Reads a line of JSON from stdin per command, answers with one on stdout; see `Nursery`. Processes
and SIGKILL are real; what fork saves is the import, which takes most of a short command's time.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

# What changes files, as CPython audits it, just before it happens.
CHANGES = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link")


class End(NamedTuple):
    """How a process ended.

    Attributes:
        killed: whether by SIGKILL.
        code: exit status; 0 unless it failed or was killed.
        seconds: how long it lived.
        changes: how often it was about to change a file, if it lived to tell.
    """

    killed: bool
    code: int
    seconds: float
    changes: int


class Nursery:
    """Forks processes that run `vqk` commands; use as a context.

    Args:
        log: file that gets what the commands print.
    """

    def __init__(self, log: Path) -> None:
        self.log = log

    def __enter__(self) -> "Nursery":
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(self.log)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=60)

    def run(
        self, argv: list[str], *, seconds: float | None = None, change: int | None = None
    ) -> End:
        """Runs a command and kills it, if it lives that long.

        Args:
            argv: as for `vqk`.
            seconds: after this time.
            change: just before it changes a file for this time, counted from 1.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {"argv": argv, "seconds": seconds, "change": change}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the nursery died"
        return End(**json.loads(answer))


def _serve(log: str) -> None:
    import vqtrain.extract
    import vqtrain.train_prior
    import vqtrain.train_tokenizer  # noqa: F401 (so that children have imported everything)
    from vqtrain.cli import main

    answers = os.fdopen(os.dup(1), "w")
    for handle in (1, 2):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), handle)
    for line in sys.stdin:
        order = json.loads(line)
        reader, writer = os.pipe()
        begin = time.perf_counter()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                count = _watch_changes(order["change"])
                code = main(order["argv"])
                os.write(writer, str(count[0]).encode())
            finally:
                sys.stdout.flush()
                os._exit(code)
        os.close(writer)
        status = _reap(child, order["seconds"])
        with os.fdopen(reader) as told:
            changes = told.read()
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        end: dict[str, Any] = {
            "killed": killed,
            "code": os.waitstatus_to_exitcode(status),
            "seconds": time.perf_counter() - begin,
            "changes": int(changes or 0),
        }
        answers.write(json.dumps(end) + "\n")
        answers.flush()
    os._exit(0)  # without the seconds that unloading takes


def _watch_changes(deadly: int | None) -> list[int]:
    """Counts this process's changes of files, and kills it before the one that is named."""
    count = [0]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in CHANGES or (event == "open" and not _writes(arguments)):
            return
        count[0] += 1
        if count[0] == deadly:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    return count


def _writes(arguments: tuple[Any, ...]) -> bool:
    """Whether an `open` is one that can change the file."""
    flags = arguments[2]
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR))


def _reap(child: int, seconds: float | None) -> int:
    """The child's exit status, after killing it if it lives longer than `seconds`."""
    deadline = None if seconds is None else time.perf_counter() + seconds
    while deadline is not None and time.perf_counter() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        time.sleep(0.001)
    if deadline is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


if __name__ == "__main__":
    _serve(sys.argv[1])
