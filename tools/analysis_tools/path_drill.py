"""Predict images under names of every kind, beside files of the user's, and count what was overwritten or lost.

In each round a folder gets images, links and folders at random, also where the results go. ``mixdet.deploy`` then
predicts them with a network that finds the same box everywhere, or ``mixdet.PictureHook`` draws them as a test does;
the paths have ``..``, links and other spellings in them. Afterwards no file that was there may have changed, and every
input must have a file of its own. Exits with status 1 otherwise.
"""

import argparse
import hashlib
import json
import os
import random
import sys
import tempfile
import unicodedata
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from mixdet.cli.main import run_tool
from mixdet.deploy.inference import Detection
from mixdet.deploy.prediction import IMAGES, PICTURES, Predictor
from mixdet.engine import PictureHook
from mixdet.text import print

PER_ROUND = 100  # inputs
NAMES = [
    'a.png', 'A.png', 'a.PNG', 'a.jpg', 'A.JPG', 'a.png.jpg', 'a.png.jpg.png', 'a_2.jpg', 'a', 'a.', '.a.png', '-a.png',
    'a b.png', 'a%02d.png', '[x].png', '=1+1.png', '$HOME.png', 'a\nb.png', 'a\x1b[31m.png', 'con.png',
    'caf\u00e9.png', 'cafe\u0301.png', 'stra\u00dfe.png', 'STRASSE.png', '文.png',
    os.fsdecode(b'\xe9.png'), os.fsdecode(b'\xff\xfe'), f'{"x" * 248}.png', f'{"文" * 83}.png', f'{"x" * 250}.jpg',
]  # fmt: skip
FOLDERS = ['', 'a', 'A', 'a.jpg', 'a.png.jpg', 'b/c', 'b/C', 'e\u0301', '\u00e9', os.fsdecode(b'\xff'), 'y' * 250]
LINKS = ['link', 'a/link', 'b/link']


class OneBox:
    """A detector that finds one box in each image."""

    score_thr = 0.5
    model = SimpleNamespace(dataset_meta=dict(classes=('thing',)))

    def predict_samples(self, arrays: list[np.ndarray]) -> list[DetDataSample]:
        """The box as MMDetection gives it."""
        found = InstanceData(
            bboxes=torch.tensor([[1.0, 1.0, 6.0, 6.0]]), scores=torch.tensor([0.9]), labels=torch.tensor([0])
        )
        return [DetDataSample(pred_instances=found) for _ in arrays]

    def detections(self, sample: DetDataSample) -> list[Detection]:
        """The box."""
        return [Detection('thing', 0, 0.9, (1.0, 1.0, 6.0, 6.0))]


class Inputs(list):
    """Paths as a data set of images."""

    metainfo = OneBox.model.dataset_meta

    def get_data_info(self, index: int) -> dict:
        """The path of an image."""
        return dict(img_path=str(self[index]))


@dataclass
class Tally:
    """What happened so far."""

    inputs: int = 0
    changed: int = 0
    lost: int = 0
    alike: int = 0

    def __str__(self) -> str:
        return (
            f'{self.inputs} inputs; files of the user that changed: {self.changed}; inputs without a file of their '
            f'own: {self.lost}; files that another system takes for one: {self.alike}'
        )


def make_folder(root: Path, rng: random.Random) -> list[Path]:
    """Fill ``root`` with images and links, also where results go; returns paths of images, spelt oddly."""
    _, content = cv2.imencode('.png', np.full((8, 8, 3), 90, np.uint8))
    for folder in ('in', f'out/{PICTURES}', 'elsewhere'):
        for name in rng.sample(FOLDERS, rng.randint(1, len(FOLDERS))):
            (root / folder / name).mkdir(parents=True, exist_ok=True)
    for link in rng.sample(LINKS, rng.randint(0, len(LINKS))):
        for folder in ('in', f'out/{PICTURES}'):
            place = root / folder / link
            if place.parent.is_dir():
                place.symlink_to(rng.choice([root / 'elsewhere', root / 'in', Path('nowhere'), Path(place.name)]))
    folders = [path for path in root.rglob('*') if path.is_dir() and not path.is_symlink()]
    images = []
    for folder in folders:
        for name in rng.sample(NAMES, rng.randint(1, 8)):
            if not (folder / name).exists():
                (folder / name).write_bytes(content.tobytes() + os.fsencode(folder / name))  # no two are equal
                images.append(folder / name)
    for name in rng.sample(NAMES, 3):
        if not os.path.lexists(root / 'out' / PICTURES / name):
            (root / 'out' / PICTURES / name).symlink_to(rng.choice([*images, root / 'gone']))
    found = [path for folder in folders for path in folder.glob('*') if path.is_file()]
    return [spelling(rng.choice(found), root, rng) for _ in range(PER_ROUND)]


def spelling(path: Path, root: Path, rng: random.Random) -> Path:
    """Another path of the same file: absolute or relative, with a detour."""
    detours = ['.', 'in/..', 'elsewhere/../in/..', 'out/../elsewhere/..']
    links = [link for link in LINKS if (root / 'in' / link).is_dir()]
    if links and path.is_relative_to(root / 'elsewhere'):
        through = root / 'in' / rng.choice(links)
        if (through / path.relative_to(root / 'elsewhere')).is_file():
            return through / path.relative_to(root / 'elsewhere')
    relative = Path(rng.choice(detours)) / path.relative_to(root)
    return rng.choice([path, root / relative, relative, path.relative_to(root)])


def state(root: Path) -> dict[str, str]:
    """What there is below ``root``: by path the content's digest, or where a link leads."""
    found = {}
    for folder, folders, files in os.walk(root):
        for path in (Path(folder, name) for name in (*folders, *files)):
            if path.is_symlink():
                found[str(path)] = f'-> {os.readlink(path)}'
            elif path.is_file():
                found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def predict(paths: list[Path], out: Path) -> None:
    """As ``tools/predict.py`` does, twice: the second run replaces what the first wrote."""
    for overwrite in (False, True):
        predictor = Predictor(OneBox(), out, batch_size=3, overwrite=overwrite)  # type: ignore[arg-type]  # a stand-in
        with redirect_stdout(StringIO()):
            predictor.run(paths)


def draw(paths: list[Path], out: Path) -> None:
    """As ``tools/test.py --show-dir`` does."""
    hook, loader = PictureHook(str(out / PICTURES)), SimpleNamespace(dataset=Inputs(paths))
    runner: Any = SimpleNamespace(test_dataloader=loader, work_dir='.', timestamp='now', visualizer=None)
    hook.before_test(runner)
    for index, path in enumerate(paths):
        (sample,) = OneBox().predict_samples([np.zeros(0)])
        sample.set_metainfo(dict(img_path=str(path)))
        hook.after_test_iter(runner, index, outputs=[sample])


def run_round(root: Path, rng: random.Random, tally: Tally) -> None:
    """One folder, its inputs and what became of them."""
    paths = make_folder(root, rng)
    os.chdir(root)
    before = state(root)
    by_hook = rng.random() < 0.5
    (draw if by_hook else predict)(paths, root / 'out')
    after = state(root)
    written = [Path(name) for name in after if name not in before and Path(name).parent != root / 'out']
    if not by_hook:
        listed = json.loads((root / 'out' / IMAGES).read_bytes())['images']
        written = list({root / 'out' / image['picture'] for image in listed})
    inside = [path for path in written if path.resolve().is_relative_to(root / 'out' / PICTURES) and path.is_file()]
    names = {unicodedata.normalize('NFC', str(path).casefold()) for path in inside}
    tally.inputs += len(paths)
    tally.changed += sum(after.get(name) != content for name, content in before.items())
    tally.lost += len(paths) - len(inside)
    tally.alike += len(inside) - len(names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--paths', type=int, default=2000, help='inputs, 100 to a folder (default: 2000)')
    parser.add_argument('--seed', type=int, default=0, help='of the names and links')
    args = parser.parse_args()

    rng, tally, home = random.Random(args.seed), Tally(), Path.cwd()
    while tally.inputs < args.paths:
        with tempfile.TemporaryDirectory(prefix='path_drill-') as folder:
            run_round(Path(folder).resolve(), rng, tally)
            os.chdir(home)
    print(tally)
    if tally.changed or tally.lost or tally.alike:
        sys.exit(1)


if __name__ == '__main__':
    run_tool(main)
