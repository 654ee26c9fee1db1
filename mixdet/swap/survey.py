"""Trying a backbone in many configs: which detectors build and run, and why the others do not."""

import gc
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Optional

from mmengine.config import Config
from mmengine.registry import init_default_scope

from mixdet.errors import UserError, first_line
from mixdet.swap.isolation import BUILDS, CLASSIFIERS, FAILS, RUNS, run_isolated, shorten_reason
from mixdet.swap.offline import without_downloads
from mixdet.swap.outputs import backbone_outputs
from mixdet.swap.swap import load_config_leniently, swap_backbone

REFUSED, UNREADABLE, NO_MODEL = 'refused', 'unreadable', 'no model'
COUNTED = (RUNS, BUILDS, FAILS, REFUSED)
SAME_AS_ORIGINAL = ' - so does the original'
HEADER = ('| configs | run | build only | fail | refused |', '|---|---|---|---|---|---|')


class Attempt(NamedTuple):
    """The outcome for one config file.

    Attributes:
        config: path of the file, relative to the folder of the configs.
        status: 'runs' (built, and predicted on one image), 'builds' (built, but did not predict), 'fails', 'refused'
            (by ``swap_backbone``), 'unreadable' or 'no model'.
        reason: one line.
        detector: type of the model.
        backbone, strides: type and output strides (px) of the old backbone.
    """

    config: str
    status: str
    reason: str = ''
    detector: str = ''
    backbone: str = ''
    strides: tuple[int, ...] = ()

    @property
    def pyramid(self) -> bool:
        """Whether it is a detector whose backbone has outputs of stride 4 to 32, each at most once."""
        strides = [stride for stride in self.strides if stride > 1]  # DetectoRS passes on the image as well
        distinct = len(set(strides)) == len(strides) > 0
        return distinct and set(strides) <= {4, 8, 16, 32} and self.detector not in CLASSIFIERS


def survey(
    folder: Path,
    paths: Iterable[Path],
    backbone: str,
    results: Path,
    seconds: int = 120,
    language_model: Optional[str] = None,
) -> Iterator[Attempt]:
    """Try ``backbone`` in every config of ``paths`` and yield the outcomes.

    Each detector is built and run in a process of its own, so that one that hangs or runs out of memory does no harm;
    equal models are run once.

    Args:
        folder: configs are named relative to it.
        paths: config files.
        backbone: name, see ``named_backbone``.
        results: file of one JSON line for each config; configs that it holds already are not tried again.
        seconds: time limit for one config.
        language_model: folder of a BERT to use instead of the one that GLIP and Grounding DINO download.

    Raises:
        UserError: if ``results`` is another file.
    """
    try:
        results.touch()
        stored = [Attempt(**json.loads(line)) for line in results.read_text(encoding='utf-8').splitlines()]
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f'{results} is not a file of this survey ({first_line(error)}); give another name') from error
    done = {attempt.config: attempt._replace(strides=tuple(attempt.strides)) for attempt in stored}
    outcomes: dict[str, tuple[str, str]] = {}

    def outcome(model: dict) -> tuple[str, str]:
        model = without_downloads(model, language_model)
        digest = hashlib.sha256(json.dumps(model, sort_keys=True, default=str).encode()).hexdigest()
        if digest not in outcomes:
            outcomes[digest] = run_isolated(model, seconds)
        return outcomes[digest]

    for path in paths:
        name = str(path.relative_to(folder))
        if name not in done:
            attempt, models = _swap(path, name, backbone)
            if models is not None:
                swapped, original = models
                status, reason = outcome(swapped)
                if status != RUNS and outcome(original) == (status, reason):
                    reason += SAME_AS_ORIGINAL
                attempt = attempt._replace(status=status, reason=reason)
            done[name] = attempt
            with results.open('a', encoding='utf-8') as file:
                file.write(json.dumps(attempt._asdict()) + '\n')
        yield done[name]


def _swap(path: Path, name: str, backbone: str) -> tuple[Attempt, Optional[tuple[dict, dict]]]:
    """The model of the config ``path`` with our backbone and with its own; None with the reason if there is none."""
    attempt = Attempt(name, UNREADABLE)
    try:
        cfg = load_config_leniently(str(path))
        if not isinstance(cfg.get('model'), dict):
            return attempt._replace(status=NO_MODEL, reason='not a config of a detector'), None
        init_default_scope(cfg.get('default_scope') or 'mmdet')
        detector = cfg.model if 'backbone' in cfg.model else cfg.model.get('detector', cfg.model)
        old_backbone = detector.get('backbone', {}).get('type', '')
        attempt = attempt._replace(detector=cfg.model.type, backbone=old_backbone, strides=_strides(detector))
        model = swap_backbone(cfg, backbone).cfg.model.to_dict()
    except UserError as error:
        status = UNREADABLE if 'cannot be read' in str(error) else REFUSED
        reason = shorten_reason(str(error).replace(str(path)[: -len(name)], ''))
        return attempt._replace(status=status, reason=reason), None
    gc.collect()
    return attempt, (model, cfg.model.to_dict())


def _strides(detector: Config) -> tuple[int, ...]:
    try:
        return backbone_outputs(detector['backbone']).strides
    except Exception:  # its package may not be installed
        channels = (detector.get('neck') or {}).get('in_channels', ())
        return (4, 8, 16, 32)[-len(channels) :] if isinstance(channels, (list, tuple)) and channels else ()


def survey_tables(attempts: Sequence[Attempt]) -> str:
    """The outcomes in Markdown: a summary, every reason with its configs, and the counts by folder."""
    others = [attempt for attempt in attempts if attempt.status in COUNTED and not attempt.pyramid]
    lines = [
        f'| {HEADER[0]}',
        HEADER[1],
        _counts('detectors on a pyramid of stride 4-32', [attempt for attempt in attempts if attempt.pyramid]),
        _counts('other models', others),
        f'| not read | {sum(attempt.status == UNREADABLE for attempt in attempts)} | | | | |',
        f'| no model | {sum(attempt.status == NO_MODEL for attempt in attempts)} | | | | |',
        '',
        '## What does not run',
        '',
    ]
    reasons: dict[tuple[str, str], list[str]] = {}
    for attempt in attempts:
        if attempt.status not in (RUNS, NO_MODEL):
            reasons.setdefault((attempt.status, attempt.reason), []).append(attempt.config)
    for (status, reason), configs in sorted(reasons.items(), key=lambda item: (item[0][0], -len(item[1]))):
        lines += [f'- {status}, {len(configs)}: {reason}', *(f'  - `{config}`' for config in configs)]
    lines += ['', '## By folder', '', f'| folder {HEADER[0]}', HEADER[1]]
    folders: dict[str, list[Attempt]] = {}
    for attempt in attempts:
        if attempt.status in COUNTED:
            folders.setdefault(attempt.config.partition('/')[0], []).append(attempt)
    lines += [_counts(folder, in_folder) for folder, in_folder in folders.items()]
    return '\n'.join(lines) + '\n'


def _counts(title: str, attempts: Sequence[Attempt]) -> str:
    counts = [sum(attempt.status == status for attempt in attempts) for status in COUNTED]
    return f'| {title} | {len(attempts)} | ' + ' | '.join(map(str, counts)) + ' |'
