"""A study: rows x data sets x seeds under one protocol, as its config file says, and the config of each run."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Optional

import torch
from mmengine.config import Config

from mixdet.compat.config_variables import variables_set
from mixdet.datasets.reading import read_coco
from mixdet.datasets.wrappers import unwrap_dataset
from mixdet.engine.atomic import make_folder, write_text, writing
from mixdet.engine.config import load_config
from mixdet.engine.validation import without_validation
from mixdet.errors import UserError
from mixdet.reproduction.splitting import hold_out
from mixdet.reproduction.table1 import find_config, row_name

START = '-in1k'  # at the end of a row's name: its backbone starts from ImageNet weights
HELD_OUT = '_held-out'  # at the end of the name of a data set: trained and tested on parts of its training images
FROM_DATA = ('train_dataloader', 'test_dataloader', 'test_evaluator')
FROM_SCHEDULE = ('train_cfg', 'test_cfg', 'param_scheduler', 'optim_wrapper', 'auto_scale_lr', 'custom_hooks')


class Run(NamedTuple):
    """One training of a study with its test.

    Attributes:
        family: rows that have their schedule and its settings in common.
        row: such as ``mobilenetv2-mixconv357``.
        config: the row's config file.
        data: name of the data set; with ``HELD_OUT`` for a run by which settings are chosen.
        seed: of the training.
        settings: variables of the schedule that are tried; None for those that the family has chosen.
    """

    family: str
    row: str
    config: Path
    data: str
    seed: int
    settings: Optional[dict[str, Any]] = None

    @property
    def name(self) -> str:
        """``neu-det/mobilenetv2-mixconv357_seed0``: its place among the work dirs and results."""
        tried = ''.join(f'_{key}{value}' for key, value in (self.settings or {}).items())
        return f'{self.data}/{self.row}{tried}_seed{self.seed}'


class Study(NamedTuple):
    """What a study's config says.

    Attributes:
        file: the config.
        base: the folder that the files it names are relative to, ``configs/_base_``.
        families: by name, ``rows``, ``schedule`` and ``chosen_with``.
        data_sets: by name, ``config``, ``max_epochs``, ``seeds`` and ``variables`` of the config that are set.
        choice: ``data``, ``held_out`` (a fraction), ``seeds`` and ``settings``; None for the schedules as they are.
    """

    file: Path
    base: Path
    families: Mapping[str, Mapping]
    data_sets: Mapping[str, Mapping]
    choice: Optional[Mapping]

    def runs(
        self, rows: Sequence[str] = (), data: Sequence[str] = (), seeds: Sequence[int] = (), choose: bool = True
    ) -> list[Run]:
        """The runs in the order in which they are done: choices first, then set by set, seed by seed.

        Args:
            rows, data, seeds: only these; all by default. Choices have their own data and seeds.
            choose: with the runs by which the settings of these rows are chosen.

        Raises:
            UserError: if there is no such row, data set or seed.
        """
        every = {name: list(self._rows(name)) for name in self.families}
        known = [row for of_family in every.values() for row, _ in of_family]
        _check_known('--rows', rows, known)
        held_out = [f'{self.choice["data"]}{HELD_OUT}'] if self.choice else []
        _check_known('--data', data, [*self.data_sets, *held_out])
        _check_known('--seeds', seeds, [seed for entry in self.data_sets.values() for seed in entry['seeds']])
        wanted = [
            (name, row, config) for name, rows_ in every.items() for row, config in rows_ if not rows or row in rows
        ]
        found = self.choices(dict.fromkeys(name for name, _, _ in wanted)) if choose else []
        for name, entry in self.data_sets.items():
            if not data or name in data:
                for seed in entry['seeds']:
                    if not seeds or seed in seeds:
                        found += [Run(family, row, config, name, seed) for family, row, config in wanted]
        return found

    def _rows(self, family: str) -> Iterable[tuple[str, Path]]:
        for name in self.families[family]['rows']:
            yield self._row(name)

    def _row(self, name: str) -> tuple[str, Path]:
        config = self.base / name if name.endswith('.py') else find_config(self.base.parent, name)
        return row_name(config).removesuffix(START), config

    def choices(self, families: Iterable[str]) -> list[Run]:
        """The runs by which the settings of these families are chosen."""
        if self.choice is None:
            return []
        found = []
        for seed in self.choice['seeds']:
            for family in families:
                row, config = self._row(self.families[family]['chosen_with'])
                data = f'{self.choice["data"]}{HELD_OUT}'
                found += [Run(family, row, config, data, seed, dict(tried)) for tried in self.choice['settings']]
        return found


def load_study(path: Path) -> Study:
    """The study in ``path``, a file in ``configs/_base_/studies``. Raises UserError if it cannot be used."""
    cfg = load_config(str(path))
    missing = [key for key in ('families', 'data_sets') if not cfg.get(key)]
    if missing:
        raise UserError(f'{path} is no study: it has no {" and no ".join(missing)}')
    choice = cfg.get('choice')
    if choice and choice['data'] not in cfg.data_sets:
        raise UserError(f'{path}: choice.data={choice["data"]!r} is none of the data_sets')
    base = Path(cfg.get('base') or path.resolve().parent.parent)
    return Study(path, base, cfg.families, cfg.data_sets, choice)


def run_config(
    study: Study, run: Run, settings: Mapping[str, Any], data_root: Path, work_dir: Path, checkpoint_interval: int = 1
) -> Config:
    """The config of a run: model of the row, data of the data set, schedule of the family.

    No validation during the training: what is tested is the end of it. Images are loaded by the process that trains,
    since many runs side by side need no further processes.

    Args:
        study, run: what to do.
        settings: variables of the schedule.
        data_root: folder with a folder for each data set, named as in the study.
        work_dir: of the study; parts of a training set that are held out are written there.
        checkpoint_interval: epochs between two checkpoints.

    Raises:
        UserError: if a file is missing, or nothing in the schedule is called as a setting is.
    """
    name = run.data.removesuffix(HELD_OUT)
    entry = study.data_sets[name]
    root = data_root.resolve() / name
    if not root.is_dir():
        raise UserError(f'data set {root} does not exist; set --data-root, or choose others with --data')
    cfg = load_config(str(run.config))
    data = _load(study.base / entry['config'], dict(entry.get('variables') or {}, data_root=f'{root}/'))
    schedule = _load(
        study.base / study.families[run.family]['schedule'], dict(max_epochs=entry['max_epochs'], **settings)
    )
    for source, keys in ((data, FROM_DATA), (schedule, FROM_SCHEDULE)):
        for key in keys:
            cfg[key] = source[key]
    train, test = (unwrap_dataset(cfg[f'{part}_dataloader'].dataset) for part in ('train', 'test'))
    if run.data != name:
        kept, held_out = _write_parts(study, name, root / train['ann_file'], work_dir)
        train['ann_file'] = str(kept)
        test['ann_file'] = cfg.test_evaluator.ann_file = str(held_out)
        test['data_prefix'] = train['data_prefix']
    if not (train.get('metainfo') or {}).get('classes'):
        names = [category['name'] for category in read_coco(root / train['ann_file'])['categories']]
        train['metainfo'] = test['metainfo'] = dict(classes=tuple(names))
    cfg.model.bbox_head.num_classes = len(train['metainfo']['classes'])
    for part in ('train', 'test'):
        cfg[f'{part}_dataloader'].update(num_workers=0, persistent_workers=False)
    without_validation(cfg)
    _set_runtime(cfg, run, checkpoint_interval)
    return cfg


def _set_runtime(cfg: Config, run: Run, checkpoint_interval: int) -> None:
    hooks = cfg.default_hooks
    hooks.checkpoint.update(interval=checkpoint_interval, max_keep_ckpts=1, save_best=None)
    hooks.update(report=None, visualization=None)
    cfg.env_cfg.cudnn_benchmark = False  # trying algorithms out takes longer than a short training gains
    cfg.randomness = dict(seed=run.seed)
    if not torch.cuda.is_available():
        cfg.custom_hooks.append(dict(type='mixdet.ChannelsLastHook'))
    # MMEngine keeps one object for each name: several runs in a process need names of their own
    cfg.experiment_name = run.name.replace('/', '_')
    cfg.visualizer.name = cfg.experiment_name


def _load(path: Path, variables: Mapping[str, Any]) -> Config:
    """The config in ``path`` with ``variables`` set. Raises UserError unless it has each of them."""
    with variables_set(variables):
        cfg = load_config(str(path))
    for key, value in variables.items():
        if key not in cfg or cfg[key] != value:
            raise UserError(f'{path} has no variable {key}, which the study sets to {value!r}')
    return cfg


def _write_parts(study: Study, name: str, ann_file: Path, work_dir: Path) -> tuple[Path, Path]:
    """Files with the training images of a data set that are trained on in a choice, and those that are held out."""
    assert study.choice is not None
    folder = (work_dir / 'splits' / name).resolve()
    files = folder / 'train.json', folder / 'held_out.json'
    parts = hold_out(read_coco(ann_file), study.choice['held_out'])
    make_folder(folder)
    for path, part in zip(files, parts):
        text = json.dumps(part)
        if not path.is_file() or path.read_text(encoding='utf-8') != text:
            with writing(path):  # several processes write the same
                write_text(path, text)
    return files


def _check_known(option: str, chosen: Iterable, known: Iterable) -> None:
    known = list(dict.fromkeys(known))
    for value in chosen:
        if value not in known:
            raise UserError(f'{option} {value}: must be one of {", ".join(map(str, known))}')
