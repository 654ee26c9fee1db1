"""Where the weights came from that a training began with."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional, Union

from torch import nn

from mixdet.engine.checkpoint import read_checkpoint
from mixdet.errors import UserError, first_line

SCRATCH = 'scratch'
UNKNOWN = 'not recorded'
# what tools/convert_weights.py notes in a checkpoint, by the words that a reader sees
CONVERSION = {'source': 'converted from', 'kind': 'as', 'licence': 'licence'}
# batch-norms whose statistics somebody had folded into the weights; lists of names in the meta
FOLDED = {'folded': 'folded batch-norms', 'restored': 'batch-norms with restored statistics'}
DIGITS = 8  # of a file's hash, enough to tell files of one name apart


def weight_sources(model: nn.Module, load_from: Optional[str] = None) -> list[dict]:
    """Each file that gave ``model`` weights, with the part that took them, in values that JSON can hold.

    ``load_from`` fills the whole model; an ``init_cfg`` of type Pretrained fills the module that has it. A file's
    ``sha256`` and what its ``meta`` says of its origin are noted where it is a local file.
    """
    found: list[tuple[str, Any, str]] = [('model', load_from, '')] if load_from else []
    for name, module in model.named_modules():
        init = getattr(module, 'init_cfg', None)
        for cfg in [init] if isinstance(init, dict) else init or ():
            kind = cfg.get('type')
            if 'Pretrained' in str(kind if isinstance(kind, str) else getattr(kind, '__name__', '')):
                found.append((name or 'model', cfg.get('checkpoint'), cfg.get('prefix') or ''))
    return [
        dict(part=part, file=str(file), **(dict(prefix=prefix) if prefix else {}), **_origin(str(file)))
        for part, file, prefix in dict.fromkeys(found)
    ]


def describe_start(card: dict) -> str:
    """One line on the start of a training, from its model card: ``scratch``, or each part with its file."""
    if 'start' not in card:  # written by mixdet 0.2 or earlier, which noted load_from alone
        return card.get('started_from') or UNKNOWN
    return '; '.join(f'{part}: {text}' for part, text in described_sources(card['start'])) or SCRATCH


def described_sources(sources: Sequence[dict]) -> list[tuple[str, str]]:
    """For each of ``weight_sources`` the part of the model, and its file and origin in words."""
    lines = []
    for source in sources:
        facts = [f'{words} {source[key]}' for key, words in CONVERSION.items() if source.get(key)]
        facts += [f'{source[key]} {words}' for key, words in FOLDED.items() if source.get(key)]
        if source.get('experiment'):
            facts.append(f'{source["experiment"]}, epoch {source["epoch"]}')
        if source.get('prefix'):
            facts.append(f'its {source["prefix"].rstrip(".")} alone')
        if source.get('sha256'):
            facts.append(f'sha256 {source["sha256"][:DIGITS]}')
        if source.get('unread'):
            facts.append(source['unread'])
        lines.append((source['part'], source['file'] + (f' ({", ".join(facts)})' if facts else '')))
    return lines


def _origin(file: str) -> dict[str, Any]:
    """Hash of a local file, and the origin that its meta notes; empty for a URL or the name of a model zoo."""
    if '://' in file or not Path(file).is_file():
        return {}
    origin: dict[str, Any] = dict(sha256=_digest(file))
    try:
        meta = read_checkpoint(file).get('meta')
    except UserError as error:  # it was loaded, with --unsafe-load perhaps: the card can do without
        return dict(origin, unread=first_line(error))
    if not isinstance(meta, dict):
        return origin
    origin.update({key: str(meta[key]) for key in CONVERSION if meta.get(key)})
    origin.update({key: count for key in FOLDED if (count := _length(meta.get(key)))})
    if meta.get('experiment_name'):  # a checkpoint of MMEngine
        origin.update(experiment=str(meta['experiment_name']), epoch=meta.get('epoch'))
    return origin


def _length(value: Any) -> int:
    return len(value) if isinstance(value, (list, tuple)) else 0


def _digest(file: Union[str, Path]) -> str:
    digest = hashlib.sha256()
    with open(file, 'rb') as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
