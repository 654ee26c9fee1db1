"""A study of two networks that train in seconds."""

from pathlib import Path

from helpers import ROOT

from mixdet.datasets import make_demo_data
from mixdet.reproduction.run_results import RunResult

ROWS = Path(__file__).parent / 'study_rows'  # config files
STUDY = """
base = {base!r}
families = dict(
    tiny=dict(rows=[{rows!r} + f'/ssdlite_tiny{{size}}_coco.py' for size in (3, 5)],
              schedule='schedules/schedule_study.py', chosen_with={rows!r} + '/ssdlite_tiny3_coco.py'))
data_sets = dict(demo=dict(config='datasets/demo.py', max_epochs=2, seeds=[0, 1]))
choice = dict(data='demo', held_out=0.3, seeds=[0], settings=[dict(lr=0.001), dict(lr=0.01)])
"""


def write_study(folder: Path) -> Path:
    """The study's config in ``folder``, and its data in ``folder/data``."""
    make_demo_data(folder / 'data/demo', {'train': 12, 'val': 2})
    path = folder / 'study.py'
    path.write_text(STUDY.format(base=str(ROOT / 'configs/_base_'), rows=str(ROWS)))
    return path


def result(row: str, data: str = 'neu-det', seed: int = 0, ap: float = 0.25, **changes) -> RunResult:
    """What a run of ``row`` might give."""
    fields = dict(
        family=row.partition('-')[0],
        row=row,
        config=f'ssdlite_{row}-in1k_8xb24-600e_coco',
        data=data,
        seed=seed,
        settings=dict(lr=0.001),
        epochs=10,
        iterations=520,
        batch_size=24,
        input_size=[224, 224],
        images=dict(train=1237, test=354),
        stats=dict(mAP=ap, mAP_50=2 * ap, mAP_75=ap / 2),
        per_class=dict(patches=ap, scratches=ap),
        params=5_000_000,
        macs=600_000_000,
        loss=[[13, 8.5], [26, 4.25]],
        seconds=dict(train=100.0, test=8.0),
        device='NVIDIA H100',
        jobs=16,
        versions=dict(mixdet='0.2.0', torch='2.11.0'),
        command='python tools/study.py ...',
    )
    return RunResult(**{**fields, **changes})
