"""Runs damaged files through workers, and starts another worker where one dies.

python tests/damage/damage_runs.py --seed 7 --count 20000    more of them; prints what failed
python tests/damage/damage_runs.py png/0/123                 one again, and keeps its file
"""

from __future__ import annotations

import argparse
import json
import os
import select
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from damage_cases import case, names

HERE = Path(__file__).resolve().parent
PLACES = [str(HERE), str(HERE.parent), str(HERE.parents[1])]


START, ANSWER = 600.0, 330.0  # seconds until a worker answers; it ends itself before the latter
ROOM = 6 * 2**30  # of address space, so that a mistake cannot take the machine's memory


class Runner:
    """One worker at a time, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def run(self, name: str) -> dict[str, Any]:
        """The worker's answer for a case, or how it died of it."""
        process = self._process or self._started()
        self._process = process
        assert process.stdin is not None
        process.stdin.write(f"{name}\n")
        process.stdin.flush()
        answer = self._line(process, ANSWER)
        if answer is None:
            self._end()
            last = (self._folder / "stderr").read_text(errors="replace")[-3000:]
            problem = f"the process ended with {process.returncode}\n{last}"
            return {
                "name": name,
                "recipe": case(name).recipe,
                "outcome": "died",
                "problem": problem,
            }
        return answer

    def _started(self) -> subprocess.Popen[str]:
        words = [sys.executable, "-B", str(HERE / "damage_worker.py"), str(self._folder)]
        with (self._folder / "stderr").open("w") as errors:
            process = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join([*PLACES, *sys.path]),
                    "OPENCV_LOG_LEVEL": "SILENT",  # as the command line has it
                },
                text=True,
                preexec_fn=_limit_room,
            )
        if self._line(process, START) != "ready":
            process.kill()
            last = (self._folder / "stderr").read_text(errors="replace")[-5000:]
            raise RuntimeError(f"the worker does not start:\n{last}")
        return process

    @staticmethod
    def _line(process: subprocess.Popen[str], seconds: float) -> Any:
        assert process.stdout is not None
        if not select.select([process.stdout], [], [], seconds)[0]:
            return None
        line = process.stdout.readline()
        return json.loads(line) if line else None

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def _limit_room() -> None:
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (ROOM, ROOM))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError, OSError):  # a system that has no such limit
        pass


def run_all(
    wanted: Sequence[str], folder: Path, tell: Callable[[dict[str, Any]], None] = lambda _: None
) -> list[dict[str, Any]]:
    """The answers for all; `tell` is called with each."""
    answers = []
    with Runner(folder) as runner:
        for name in wanted:
            answer = runner.run(name)
            tell(answer)
            answers.append(answer)
    return answers


def report(answer: dict[str, Any]) -> str:
    """A case that failed, and how to have it again."""
    return (
        f"{answer['name']} ({answer['recipe']}): {answer['problem']}\n"
        f"    again: python tests/damage/damage_runs.py {answer['name']}"
    )


def say(line: str) -> None:
    """A line for people."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    """See the file's head."""
    parser = argparse.ArgumentParser(description=__doc__, add_help=True)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--kind", action="append")
    options = parser.parse_args()
    wanted = options.names or names(options.count, options.seed)[options.first :]
    if options.kind:
        wanted = [name for name in wanted if name.split("/")[0] in options.kind]
    for name in options.names:
        kept = Path(name.replace("/", "-")).with_suffix(f".{name.split('/')[0]}")
        kept.write_bytes(case(name).data)
        say(f"{name}: {case(name).recipe}; kept as {kept}")
    with tempfile.TemporaryDirectory() as folder:
        answers = run_all(wanted, Path(folder), lambda a: a["problem"] and say(report(a)))
    for answer in answers if options.names else ():
        say(json.dumps(answer, indent=1))
    say(str(Counter(f"{a['name'].split('/')[0]} {a['outcome']}" for a in answers)))
    slowest = sorted(answers, key=lambda a: a.get("seconds", 0))[-3:]
    largest = sorted(answers, key=lambda a: a.get("peak", 0))[-3:]
    for answer in [*slowest, *largest]:
        seconds, mib = answer.get("seconds", 0), answer.get("peak", 0) / 2**20
        say(f"{answer['name']} ({answer['recipe']}): {seconds:.2f} s, {mib:.0f} MiB")
    return int(any(answer["problem"] for answer in answers))


if __name__ == "__main__":
    raise SystemExit(main())
