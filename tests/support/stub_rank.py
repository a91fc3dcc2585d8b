"""A rank that does what a test asks it for, in a process that is a rank's otherwise."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__)
COMMAND = (sys.executable, str(HERE))


class StubRank:
    def __init__(self, job: Any) -> None:
        self.job = job

    def tell(self) -> tuple[int, int]:
        return self.job.rank, os.getpid()

    def echo(self, value: Any) -> Any:
        return value

    def fail(self, kinds: dict[int, str], words: str) -> str:
        """Raise the error of the project's that is named for this rank, or one that Python has."""
        import builtins

        from kontext_trt.engine import errors

        if kind := kinds.get(self.job.rank):
            raise (getattr(errors, kind, None) or getattr(builtins, kind))(words)
        return "well"

    def sleep(self, seconds: dict[int, float]) -> int:
        time.sleep(seconds.get(self.job.rank, 0))
        return self.job.rank

    def die(self, ranks: tuple[int, ...], number: int) -> None:
        if self.job.rank in ranks:
            os.kill(os.getpid(), number)
            time.sleep(60)

    def leave(self, code: int) -> None:
        os._exit(code)

    def signals(self) -> bool:
        """Whether a terminal's interrupt would end this process."""
        return signal.getsignal(signal.SIGINT) is not signal.SIG_IGN

    def print(self, text: str) -> None:
        print(text, flush=True)
        os.write(1, f"{text}\n".encode())


def main() -> None:
    sys.path[:] = [one for one in sys.path if Path(one or ".").resolve() != HERE.parent.resolve()]
    sys.path.append(str(HERE.parents[2] / ".links"))
    from kontext_trt.runtime.executors import rank, rank_process

    rank.Rank = StubRank
    rank_process.main()


if __name__ == "__main__":
    main()
