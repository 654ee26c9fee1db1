"""Who holds a lock, and whether that process is still alive."""

import json
import os
from pathlib import Path
from typing import NamedTuple, Optional


class Holder(NamedTuple):
    """Who holds a lock."""

    host: str
    pid: int
    place: str  # boot and process namespace, in which process ids mean the same; '' if the system does not tell
    start: str  # of the process since boot: ids are used again
    since: str
    inode: int  # of the lock's file: in a copy of the folder the lock is nobody's

    def __str__(self) -> str:
        return f'process {self.pid} on {self.host}, since {self.since}'

    def is_here(self) -> bool:
        """Whether its process id means something to this process."""
        return bool(self.place) and self.place == place()

    def is_alive(self) -> bool:
        """Whether it is a running process of this machine; call it only if ``is_here``."""
        start = start_of(self.pid)
        if start is not None:
            return start == self.start
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except OSError:
            pass  # a process of another user, in a system that hides those
        return not Path(f'/proc/{self.pid}').exists()  # else it is dead, and its parent has not yet noticed


def read_holder(descriptor: int) -> Optional[Holder]:
    """The holder that a lock's file names; None if it names none."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    try:
        found = json.loads(os.read(descriptor, 1 << 16))
        return Holder(**{key: kind(found[key]) for key, kind in Holder.__annotations__.items()})
    except (ValueError, TypeError, KeyError):
        return None


def place() -> str:
    """What tells apart machines and containers between which a process id does not mean the same."""
    try:
        boot = Path('/proc/sys/kernel/random/boot_id').read_text(encoding='ascii').strip()
        return f'{boot} {os.readlink("/proc/self/ns/pid")}'
    except OSError:
        return ''


def start_of(pid: int) -> Optional[str]:
    """When process ``pid`` started, in ticks since boot; None if there is no such process, or it is dead already."""
    try:
        fields = Path(f'/proc/{pid}/stat').read_bytes().rpartition(b')')[2].split()
    except OSError:
        return None
    return None if fields[0] in (b'Z', b'X') else fields[19].decode()
