"""Which checkpoint of a work dir is the newest? Asked by its content: copies and clocks change the times of files."""

import glob
from collections.abc import Iterable
from pathlib import Path
from string import Formatter
from typing import NamedTuple, Optional

from mixdet.engine.checkpoint import incomplete, peek, read_checkpoint
from mixdet.engine.finite import nonfinite_part
from mixdet.errors import UserError

LAST = 'last_checkpoint'  # MMEngine's file with the path of the latest one
INTERRUPTED = 'interrupted_'  # prefix of a checkpoint written between two regular ones
BEST = 'best_'  # prefix of one that holds what a test needs, not a training
ATTEMPT = 'attempt'  # key in a checkpoint's meta, see ``next_attempt``


class Candidate(NamedTuple):
    """A checkpoint to resume from, or a file that has its name; the largest is the newest."""

    attempt: int
    iteration: int
    whole: bool  # as far as can be seen without reading all of it
    noted: bool  # named by ``LAST``; this and the name settle ties
    path: Path
    reason: str = ''  # why it cannot be resumed, unless it is whole


def checkpoint_patterns(folder: Path, template: str) -> list[Path]:
    """Glob patterns of the checkpoints to resume from in ``folder``, where files are named by ``template``.

    Those of MMEngine's two own templates are among them: ``by_epoch`` may have been changed.
    """
    fields = Formatter().parse(template)
    name = ''.join(glob.escape(text) + ('' if field is None else '*') for text, field, _, _ in fields)
    names = dict.fromkeys([name, 'epoch_*.pth', 'iter_*.pth', f'{INTERRUPTED}*.pth'])
    return [folder / each for each in names]


def noted_checkpoint(work_dir: Path, folder: Path) -> Optional[Path]:
    """The checkpoint that ``LAST`` in ``work_dir`` names; None if there is no such note, or if it holds no path.

    It is taken from ``folder`` if one of its name is there: a copy of a work dir must not go on with the original's.
    """
    try:
        text = (work_dir / LAST).read_text(encoding='utf-8').strip()
        path, here = Path(text), folder / Path(text).name
        if not path.name or not text.isprintable():
            return None
        return here if here.exists() else path
    except (OSError, ValueError):  # a name of any length and any characters, if the note is damaged
        return None


def survey(work_dir: Path, patterns: list[Path]) -> list[Candidate]:
    """The checkpoints of a run, the newest first: that of the highest iteration, by what the files themselves say.

    Files that cannot be read come first. Of each file only the structure is read, some milliseconds.

    Args:
        work_dir: with ``LAST``; if it names a file of another folder, that is the last of all.
        patterns: from ``checkpoint_patterns``.
    """
    paths = {
        path
        for pattern in patterns
        for path in pattern.parent.glob(pattern.name)
        if pattern.name.startswith(BEST) or not path.name.startswith(BEST)
    }
    noted = noted_checkpoint(work_dir, patterns[0].parent)
    found = sorted((_examine(path, path == noted) for path in paths), reverse=True)
    return found if noted is None or noted in paths else [*found, _examine(noted, True)]


def _examine(path: Path, noted: bool) -> Candidate:
    try:
        content = peek(path)
    except UserError as error:
        return Candidate(2**63, 0, False, noted, path, str(error))
    meta = content.get('meta')
    attempt, iteration = (meta.get(key) if isinstance(meta, dict) else None for key in (ATTEMPT, 'iter'))
    reason = incomplete(content)
    if not isinstance(iteration, int):
        return Candidate(0, -1, False, noted, path, reason or '')
    return Candidate(attempt if isinstance(attempt, int) else 0, iteration, not reason, noted, path, reason or '')


def find_newest(
    candidates: Iterable[Candidate], by_design: frozenset[str] = frozenset()
) -> tuple[Optional[Path], list[tuple[Path, str]]]:
    """The first of ``candidates`` that is whole and finite, None if there is none; and those before it, with reasons.

    ``by_design`` are the buffers that need not be finite.
    """
    skipped: list[tuple[Path, str]] = []
    for candidate in candidates:
        reason = candidate.reason or _flaw(candidate.path, by_design)
        if not reason:
            return candidate.path, skipped
        skipped.append((candidate.path, reason))
    return None, skipped


def _flaw(path: Path, by_design: frozenset[str]) -> Optional[str]:
    try:
        place = nonfinite_part(read_checkpoint(path), by_design)
    except UserError as error:
        return str(error)
    return f'its {place} is not finite' if place else None


def next_attempt(candidates: Iterable[Candidate], resumed: Optional[Path]) -> int:
    """The number of a training that begins beside ``candidates``, and that its checkpoints have in their ``meta``.

    A training that resumes the newest one goes on with its number. One that begins anew, or with an earlier
    checkpoint, gets a higher number, so that its checkpoints are newer than those of more iterations that it finds.

    Args:
        candidates: from ``survey``.
        resumed: the checkpoint it resumes, if it does.
    """
    known = [candidate for candidate in candidates if candidate.whole]
    if not known:
        return 0
    latest = max(candidate[:2] for candidate in known)
    if resumed is not None and any(latest == each[:2] and each.path.samefile(resumed) for each in known):
        return latest[0]
    return latest[0] + 1
