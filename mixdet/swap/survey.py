"""Trying a backbone in many configs: which build and run, and why the others do not."""

import copy
import gc
import hashlib
import json
import logging
import multiprocessing
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Optional

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope

from mixdet.errors import UserError
from mixdet.registry import MODELS
from mixdet.swap.outputs import describe
from mixdet.swap.swap import read_config, swap_backbone

try:
    import resource
except ImportError:  # Windows
    resource = None

RUNS, BUILDS, FAILS, REFUSED, UNREADABLE, NO_MODEL = 'runs', 'builds', 'fails', 'refused', 'unreadable', 'no model'
HEADER, RULE = '| | configs | run | build only | fail | refused |', '|---|---|---|---|---|---|'
MEMORY = 12 << 30  # bytes of address space for one detector
SO_DOES_THE_ORIGINAL = ' - so does the original'
COUNTED = (RUNS, BUILDS, FAILS, REFUSED)
# With and without the heads' own initialisation: with it some find nothing, without it some find too much. On images of
# two sizes, px: two-stage transformers take the best 900 tokens, the last level of SSD needs 300 px
TRIES = ((True, (224, 256)), (True, (512, 512)), (False, (224, 256)))
CLASSIFIERS = ('BaseReID', 'ImageClassifier')


class Trial(NamedTuple):
    """What came of one config file.

    ``status``: 'runs' (built, and predicted on one image), 'builds' (built, but did not predict), 'fails', 'refused',
    'unreadable' or 'no model'. ``backbone`` and ``strides``: type and output strides (px) of the old one.
    """

    config: str
    status: str
    reason: str = ''
    detector: str = ''
    backbone: str = ''
    strides: tuple[int, ...] = ()

    @property
    def pyramid(self) -> bool:
        """Whether it is a detector whose backbone has stages of stride 4 to 32, each once."""
        strides = [stride for stride in self.strides if stride > 1]  # DetectoRS hands on the image, too
        distinct = len(set(strides)) == len(strides) > 0
        return distinct and set(strides) <= {4, 8, 16, 32} and self.detector not in CLASSIFIERS


def survey(
    folder: Path,
    paths: Iterable[Path],
    backbone: str,
    results: Path,
    seconds: int = 120,
    language_model: Optional[str] = None,
) -> Iterator[Trial]:
    """Try ``backbone`` in every config of ``paths`` and yield what came of each.

    Each detector is built and run in a process of its own, so that one that hangs or eats the memory ends alone; equal
    models are run once.

    Args:
        folder: configs are named relative to it.
        paths: config files.
        backbone: name as ``swap_backbone`` takes it.
        results: file of one JSON line per config; what it already holds is not tried again.
        seconds: limit for one config.
        language_model: folder of a BERT that stands in for the one that GLIP and Grounding DINO download.
    """
    results.touch()
    done = [Trial(**json.loads(line)) for line in results.read_text().splitlines()]
    done = {trial.config: trial._replace(strides=tuple(trial.strides)) for trial in done}
    outcomes: dict[str, tuple[str, str]] = {}

    def outcome(model: dict) -> tuple[str, str]:
        digest = hashlib.sha256(json.dumps(model, sort_keys=True, default=str).encode()).hexdigest()
        if digest not in outcomes:
            outcomes[digest] = _in_a_process(_run, model, seconds)
        return outcomes[digest]

    for path in paths:
        name = str(path.relative_to(folder))
        if name not in done:
            trial, model, original = _prepare(path, name, backbone)
            if model is not None:
                status, reason = outcome(_offline(model, language_model))
                if status != RUNS and outcome(_offline(original, language_model)) == (status, reason):
                    reason += SO_DOES_THE_ORIGINAL
                trial = trial._replace(status=status, reason=reason)
            done[name] = trial
            with results.open('a') as file:
                file.write(json.dumps(trial._asdict()) + '\n')
        yield done[name]


def write_language_model(folder: Path) -> str:
    """A random BERT of one layer, with its tokenizer, in ``folder``; its path. Needs transformers."""
    try:
        from transformers import BertConfig, BertModel
        from transformers.modeling_utils import apply_chunking_to_forward  # noqa: F401  (MMDetection's GLIP needs it)
    except ImportError as error:
        needed = "a stand-in for BERT needs a transformers that MMDetection can use: pip install 'transformers<4.54'"
        raise UserError(needed) from error
    folder.mkdir(parents=True, exist_ok=True)
    letters = [chr(code) for code in range(ord('a'), ord('z') + 1)]
    words = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', '.', '?', *letters, *(f'##{letter}' for letter in letters)]
    (folder / 'vocab.txt').write_text('\n'.join(words) + '\n')
    (folder / 'tokenizer_config.json').write_text('{"tokenizer_class": "BertTokenizer", "do_lower_case": true}')
    BertModel(BertConfig(vocab_size=len(words), num_hidden_layers=1)).save_pretrained(folder)
    return str(folder)


def _prepare(path: Path, name: str, backbone: str) -> tuple[Trial, Optional[dict], Optional[dict]]:
    """The config's model, swapped and as it was, or why there is none."""
    trial = Trial(name, UNREADABLE)
    try:
        cfg = read_config(str(path))
        if not isinstance(cfg.get('model'), dict):
            return trial._replace(status=NO_MODEL, reason='not a config of a detector'), None, None
        init_default_scope(cfg.get('default_scope') or 'mmdet')
        detector = cfg.model if 'backbone' in cfg.model else cfg.model.get('detector', cfg.model)
        trial = trial._replace(detector=cfg.model.type, backbone=detector.get('backbone', {}).get('type', ''))
        trial = trial._replace(strides=_strides(cfg, detector))
        model = swap_backbone(cfg, backbone).cfg.model.to_dict()
    except UserError as error:
        status = UNREADABLE if 'cannot be read' in str(error) else REFUSED
        return trial._replace(status=status, reason=_line(str(error).replace(str(path)[: -len(name)], ''))), None, None
    gc.collect()
    return trial, model, cfg.model.to_dict()


def _strides(cfg: Config, detector: dict) -> tuple[int, ...]:
    try:
        return describe(detector['backbone']).strides
    except Exception:  # its package may be missing
        channels = (detector.get('neck') or {}).get('in_channels', ())
        return (4, 8, 16, 32)[-len(channels) :] if isinstance(channels, (list, tuple)) and channels else ()


def _offline(model: dict, language_model: Optional[str]) -> dict:
    """``model`` without what needs a download or more packages.

    A tracker's detector alone; no checkpoints of teachers; the stand-in for BERT.
    """
    model = copy.deepcopy(model.get('detector', model) if 'tracker' in model else model)
    _adapt(model)
    if 'num_cp' in model.get('encoder', {}):
        model['encoder']['num_cp'] = 0  # saving memory needs fairscale
    if model.get('teacher_ckpt'):
        model['teacher_ckpt'] = None
    if language_model and 'language_model' in model:
        model['language_model']['name'] = language_model
        if 'lang_model_name' in model.get('bbox_head', {}):
            model['bbox_head']['lang_model_name'] = language_model
    return model


def _adapt(node) -> None:
    """Nothing to download, and batch-norm that wants no process group, everywhere below ``node``."""
    if isinstance(node, dict):
        for key in ('init_cfg', 'pretrained'):
            if isinstance(node.get(key), str) or (isinstance(node.get(key), dict) and 'checkpoint' in node[key]):
                node[key] = None
        if node.get('type') in ('SyncBN', 'MMSyncBN'):
            node['type'] = 'BN'
    for value in node.values() if isinstance(node, dict) else node if isinstance(node, (list, tuple)) else ():
        _adapt(value)


def _in_a_process(function: Callable, model: dict, seconds: int) -> tuple[str, str]:
    context = multiprocessing.get_context('fork')
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=function, args=(model, theirs), daemon=True)
    process.start()
    theirs.close()
    outcome = (FAILS, f'no result within {seconds} s')
    if ours.poll(seconds):
        try:
            outcome = ours.recv()
        except EOFError:
            outcome = (FAILS, 'the process ended without a result')
    process.kill()
    process.join()
    return outcome


def _run(model: dict, pipe) -> None:
    """Build, predict on one image, and send the status and its reason."""
    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)  # MMEngine lists every parameter that is initialised
    status = FAILS
    try:
        if resource is not None:
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        for initialised, size in TRIES:
            network = MODELS.build(ConfigDict(model))
            if initialised:
                network.init_weights()
            network.eval()
            status = BUILDS
            try:
                with torch.no_grad():
                    _predict(network, size)
                break
            except Exception:
                if (initialised, size) == TRIES[-1]:
                    raise
        pipe.send((RUNS, ''))
    except BaseException as error:  # any upstream error is a result
        pipe.send((status, _line(f'{type(error).__name__}: {error}')))


def _predict(network: torch.nn.Module, shape: tuple[int, int]) -> None:
    from mmdet.structures import DetDataSample, ReIDDataSample, TrackDataSample
    from mmengine.structures import InstanceData

    image = torch.zeros(1, 3, *shape)
    kind = type(network).__name__
    if kind in CLASSIFIERS:
        network(image, [ReIDDataSample()], mode='tensor')
        return
    size = dict(
        border=[0, 0, 0, 0],
        img_shape=shape,
        ori_shape=shape,
        pad_shape=shape,
        batch_input_shape=shape,
        scale_factor=(1.0, 1.0),
    )
    sample = DetDataSample(metainfo=dict(size, img_id=0, img_path='', text='cat . dog', custom_entities=True))
    if kind == 'FastRCNN':  # the others have an RPN, which given proposals would bypass
        sample.proposals = InstanceData(bboxes=torch.tensor([[8.0, 8.0, 64.0, 64.0]]), scores=torch.ones(1))
    if kind == 'Mask2FormerVideo':
        sample.set_metainfo(dict(frame_id=0, video_id=0, video_length=1, ori_video_length=1))
        network(image[None], [TrackDataSample(video_data_samples=[sample])], mode='predict')
        return
    # mmdet 3.3.0's SSDHead has no predict: 'SSDHead' object has no attribute 'loss_cls'
    broken = type(getattr(network, 'bbox_head', None)).__name__.endswith('SSDHead')
    network(image, [sample], mode='tensor' if broken else 'predict')


def _line(text: str, limit: int = 240) -> str:
    """``text`` in one line, files without the folders of the machine that they lie or were built on."""
    return re.sub(r'(?<![\w.])/([^\s/:"]+/)+', '', ' '.join(text.split()))[:limit]


def markdown(trials: Sequence[Trial]) -> str:
    """The result as a table by folder, and the reasons of what does not run with the configs they hold for."""
    pyramids = [trial for trial in trials if trial.pyramid]
    lines = [
        HEADER,
        RULE,
        _row('detectors on a pyramid of stride 4-32', pyramids),
        _row('other models', [trial for trial in trials if trial.status in COUNTED and not trial.pyramid]),
        f'| not read | {sum(trial.status == UNREADABLE for trial in trials)} | | | | |',
        f'| no model | {sum(trial.status == NO_MODEL for trial in trials)} | | | | |',
        '',
        '## What does not run',
        '',
    ]
    reasons: dict[tuple[str, str], list[str]] = {}
    for trial in trials:
        if trial.status not in (RUNS, NO_MODEL):
            reasons.setdefault((trial.status, trial.reason), []).append(trial.config)
    for (status, reason), configs in sorted(reasons.items(), key=lambda item: (item[0][0], -len(item[1]))):
        lines.append(f'- {status}, {len(configs)}: {reason}')
        lines += [f'  - `{config}`' for config in configs]
    lines += [
        '',
        '## By folder',
        '',
        '| folder | configs | run | build only | fail | refused |',
        '|---|---|---|---|---|---|',
    ]
    folders: dict[str, list[Trial]] = {}
    for trial in trials:
        if trial.status in COUNTED:
            folders.setdefault(trial.config.partition('/')[0], []).append(trial)
    lines += [_row(folder, of_folder) for folder, of_folder in folders.items()]
    return '\n'.join(lines) + '\n'


def _row(title: str, trials: Sequence[Trial]) -> str:
    counts = [sum(trial.status == status for trial in trials) for status in COUNTED]
    return f'| {title} | {len(trials)} | ' + ' | '.join(map(str, counts)) + ' |'
