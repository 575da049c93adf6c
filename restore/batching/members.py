"""Which workers of a run are alive.

Each worker has a file with a counter that it raises every few seconds. One on the same machine is
dead when its process is gone; one elsewhere when its counter has stood still for a minute of our
own clock, so that the clocks of the machines need not agree. One that ends by itself removes its
file.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import sys
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

BEAT = 5.0  # seconds between two counts
# seconds without a count after which a worker elsewhere is given up; file servers may show what is
# some seconds old
LEASE = 60.0
# seconds; whose file is older than ours by so much is not waited for, whatever the clocks
LONG_AGO = 900.0
_COUNTER = 12  # characters, with the line's end


@dataclass(frozen=True)
class Process:
    """A process, on a machine, in a container."""

    machine: str  # equal where process numbers mean the same
    pid: int
    started: float  # seconds, to tell it from a later one of the same number

    @classmethod
    def current(cls) -> Process:
        """This one."""
        pid = os.getpid()
        return cls(_machine(), pid, psutil.Process(pid).create_time())

    def has_ended(self) -> bool | None:
        """Whether it is gone; None where it ran elsewhere."""
        if self.machine != _machine():
            return None
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < 1
            return not same or process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True
        except psutil.Error:  # it is there, and another user's
            return False


def _machine() -> str:
    """Host, its start and the container: what makes process numbers mean the same."""
    parts = [socket.gethostname(), sys.platform]
    for file in ("/proc/sys/kernel/random/boot_id", "/etc/machine-id"):
        with contextlib.suppress(OSError):
            parts.append(Path(file).read_text(encoding="ascii").strip())
            break
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


@dataclass
class _Seen:
    content: bytes
    since: float = field(default_factory=time.monotonic)


class Members:
    """The workers of one round.

    Args:
        folder: where their files are; made if need be.
        lease: see `LEASE`.
    """

    def __init__(self, folder: Path, lease: float = LEASE) -> None:
        self.folder = folder
        self.me = f"{socket.gethostname()[:40]}-{os.getpid()}-{secrets.token_hex(3)}"
        self._lease = lease
        self._seen: dict[str, _Seen] = {}
        self._gone: set[str] = set()
        self._left = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def _file(self) -> Path:
        return self.folder / self.me

    def join(self) -> None:
        """Be alive from now on, until `leave` or the process's end."""
        self.folder.mkdir(parents=True, exist_ok=True)
        who = json.dumps(asdict(Process.current()))
        # whole when it is there: a file without a process would have to be waited for
        new = self.folder / f".{self.me}"
        new.write_text(f"{0:0{_COUNTER - 1}}\n{who}\n", encoding="utf-8")
        os.replace(new, self._file)
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        count = 0
        while not self._left.wait(BEAT):
            count += 1
            # a file server that is away for a while must not end the run
            with contextlib.suppress(OSError), open(self._file, "r+b") as file:
                file.write(f"{count:0{_COUNTER - 1}}\n".encode())

    def leave(self) -> None:
        """Be gone, so that nobody waits."""
        self._left.set()
        if self._thread is not None:
            self._thread.join()
        with contextlib.suppress(OSError):
            self._file.unlink()

    def wait_for_others(self, seconds: float) -> None:
        """Until the others have left or are dead, or so many seconds."""
        end = time.monotonic() + seconds
        while any(map(self.is_alive, self.others())) and time.monotonic() < end:
            time.sleep(0.1)

    def others(self) -> list[str]:
        """Workers that have not left, dead ones too."""
        try:
            names = os.listdir(self.folder)
        except FileNotFoundError:
            return []
        return sorted(name for name in names if name != self.me and not name.startswith("."))

    def is_alive(self, name: str) -> bool:
        """Whether a worker is alive, as far as is known now; one elsewhere is, for its lease."""
        if not name:  # killed before it wrote its name
            return False
        if name == self.me:
            return True
        if name not in self._gone and self._has_ended(name):
            self._gone.add(name)
        return name not in self._gone

    def _has_ended(self, name: str) -> bool:
        path = self.folder / name
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return True
        except OSError:
            return False  # the file server is away; it will be asked again
        ended = _process_in(content)
        if ended is not None:
            return ended
        seen = self._seen.get(name)
        if seen is None or seen.content != content:
            self._seen[name] = _Seen(content)
            return _age(path, self._file) > LONG_AGO
        return time.monotonic() - seen.since > self._lease


def _process_in(content: bytes) -> bool | None:
    """`Process.has_ended` of the process that a worker's file names."""
    try:
        found = Process(**json.loads(content[_COUNTER:]))
    except (ValueError, TypeError):
        return None
    return found.has_ended()


def _age(path: Path, ours: Path) -> float:
    """Seconds by which a file is older than ours, by the file server's clock."""
    try:
        return ours.stat().st_mtime - path.stat().st_mtime
    except OSError:
        return 0.0
