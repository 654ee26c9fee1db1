"""A sound COCO file of three boxes, ways to damage it, and what MMDetection and pycocotools make of the result."""

import contextlib
import copy
import io
import json

from hypothesis import strategies as st
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS
from mmengine.dataset import pseudo_collate
from pycocotools.coco import COCO
from torch.utils.data import DataLoader

from mixdet.datasets.annotations import check_coco
from mixdet.datasets.issues import ANY, IssueLog
from mixdet.datasets.reading import read_coco

CLASSES = ('cat', 'dog')
COUNTED = [dict(type='LoadAnnotations', with_bbox=True), dict(type='PackDetInputs', meta_keys=('img_id',))]


def sound():
    return dict(
        images=[
            dict(id=1, file_name='1.jpg', width=100, height=80),
            dict(id=2, file_name='2.jpg', width=60, height=60),
        ],
        annotations=[
            dict(id=1, image_id=1, category_id=3, bbox=[10, 10, 20, 20], area=400, iscrowd=0),
            dict(id=2, image_id=1, category_id=5, bbox=[30.5, 10, 20, 40], area=800, iscrowd=0),
            dict(id=3, image_id=2, category_id=3, bbox=[0, 0, 60, 60], area=3600, iscrowd=0),
        ],
        categories=[dict(id=3, name='cat'), dict(id=5, name='dog')],
    )


def of(section, number=0, **changes):
    """A function that changes one entry; DEL deletes the key."""

    def change(data):
        for key, value in changes.items():
            if value is DEL:
                del data[section][number][key]
            else:
                data[section][number][key] = value

    return change


def put(section, entry):
    return lambda data: data[section].append(entry)


DEL = object()
NAN, INF = float('nan'), float('inf')


def write(folder, data):
    path = folder / 'a.json'
    path.write_text(json.dumps(data))
    return path


def examine(path, classes=None, role=ANY, **options):
    log = IssueLog(str(path), role)
    data = read_coco(path, log)
    return log, check_coco(data, log, classes, **options)


class Counter:
    """A stub of a model: a training step adds up the boxes of a batch."""

    def __init__(self):
        self.trained = self.crowds = 0

    def train_step(self, batch):
        for sample in batch['data_samples']:
            self.trained += len(sample.gt_instances)
            self.crowds += len(sample.ignored_instances)


def boxes_of_training(path, classes=CLASSES, **options):
    """An epoch of a training on ``path`` through MMDetection's data set: the number of objects, and of crowds."""
    config = dict(type='CocoDataset', ann_file=str(path), metainfo=dict(classes=classes), data_prefix=dict(img=''))
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = DATASETS.build(dict(config, pipeline=COUNTED, serialize_data=False, **options))
    model = Counter()
    for batch in DataLoader(dataset, batch_size=2, collate_fn=pseudo_collate):
        model.train_step(batch)
    return model.trained, model.crowds


def boxes_of_mmdetection(path, classes=CLASSES):
    return sum(boxes_of_training(path, classes))


def boxes_of_evaluation(path, classes=CLASSES):
    """What pycocotools evaluates of ``path``: the number of objects, and of crowds."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(path))
        # an evaluation needs the data set as well
        config = dict(metainfo=dict(classes=classes), data_prefix=dict(img=''), test_mode=True, serialize_data=False)
        CocoDataset(ann_file=str(path), **config)
        categories = [category['id'] for category in coco.dataset['categories'] if category['name'] in classes]
    boxes = coco.loadAnns(coco.getAnnIds(imgIds=coco.getImgIds(), catIds=categories)) if categories else []
    crowds = sum(bool(box.get('iscrowd')) for box in boxes)
    return len(boxes) - crowds, crowds


values = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 130), st.integers(), st.floats(),
    st.sampled_from(['', '1', '3', ' 2.0', 'cat', '1.jpg', 2**63, 2.0, 1.5]),
    st.lists(st.one_of(st.integers(-9, 120), st.floats(), st.none()), max_size=5),
    st.builds(dict), st.builds(lambda: [[1, 2, 3, 4, 5, 6]]),  # new ones: a later change goes into them
)  # fmt: skip


def _rename(section, changes):
    """An export that changes all ids of a section, and what refers to them."""

    def export(data, draw):
        change = draw(st.sampled_from(changes))
        name = {'images': 'image_id', 'categories': 'category_id'}.get(section)
        for number, entry in enumerate(data[section]):
            old = entry.get('id')
            entry['id'] = change(old, number)
            for box in data['annotations'] if name else ():
                if box[name] == old and type(box[name]) is type(old):
                    box[name] = entry['id']

    return export


def _as_text(name):
    def export(data, draw):
        for box in data['annotations']:
            if isinstance(box[name], (int, float)):
                box[name] = str(box[name])

    return export


def _root(data, draw):
    """A root category without boxes, which may have the name of another."""
    name = draw(st.sampled_from(['cat', 'dog', 'animals']))
    root = dict(id=draw(st.sampled_from([0, 1, 9])), name=name, supercategory='none')
    if root['id'] not in [category['id'] for category in data['categories']]:
        data['categories'].insert(draw(st.integers(0, 2)), root)


def _crowds(data, draw):
    everywhere = draw(st.booleans())
    for box in data['annotations']:
        if everywhere or draw(st.booleans()):
            box['iscrowd'] = draw(st.sampled_from([1, True, '1', 1.0, 2, 0, '0', None]))


def _text_numbers(data, draw):
    for image in data['images']:
        image['width'] = str(image['width'])
    for box in data['annotations']:
        box['bbox'] = [str(value) for value in box['bbox']]
        box['area'] = str(box['area'])


def _without_annotation_ids(data, draw):
    for box in data['annotations']:
        box.pop('id', None)


def _accents(data, draw):
    data['info'] = 'Kätzchen'


EXPORTS = [
    _rename('images', [lambda old, i: f'{old}', lambda old, i: f'é{i}', lambda old, i: i, lambda old, i: 2**70 + i]),
    _rename('categories', [lambda old, i: f'{old}', lambda old, i: float(i), lambda old, i: f'c{i}', lambda old, i: i]),
    _rename('annotations', [lambda old, i: f'{old}', lambda old, i: float(i), lambda old, i: None, lambda old, i: i]),
    _as_text('image_id'), _as_text('category_id'), _root, _crowds, _text_numbers, _without_annotation_ids, _accents,
]  # fmt: skip


@st.composite
def files(draw):
    """A file as tools export it, with up to three changes of values, keys, entries and sections, and sometimes bytes.

    Returns its bytes, and whether a repaired copy must have all of its three boxes: it has no such change.
    """
    data = sound()
    # in this order: what changes an id changes what refers to it, which later exports write in another way
    for number in sorted(draw(st.sets(st.integers(0, len(EXPORTS) - 1), max_size=3))):
        EXPORTS[number](data, draw)
    changes = draw(st.integers(0, 3))
    for _ in range(changes):
        section = draw(st.sampled_from(['images', 'annotations', 'annotations', 'annotations', 'categories']))
        entries = data.get(section)
        action = draw(st.sampled_from(['set', 'set', 'set', 'box', 'delete', 'copy', 'entry', 'section']))
        if action == 'section' and draw(st.integers(0, 5)) == 0:
            data[section] = draw(values)
        if not isinstance(entries, list) or not entries:
            continue
        number = draw(st.integers(0, len(entries) - 1))
        entry = entries[number]
        if action == 'entry':
            entries[number] = draw(values)
        elif action == 'copy':
            entries.append(copy.deepcopy(entry))
        elif isinstance(entry, dict) and entry:
            key = draw(st.sampled_from([*sorted(entry), 'ignore', 'segmentation', 'iscrowd']))
            if action == 'delete':
                entry.pop(key, None)
            elif action == 'box' and section == 'annotations':
                entry['bbox'] = draw(
                    st.lists(st.one_of(st.integers(-20, 130), st.floats(-20, 130)), min_size=4, max_size=4)
                )
            else:
                entry[key] = draw(values)
    text = json.dumps(data, ensure_ascii=False)
    cut = draw(st.integers(0, 9)) == 0
    if cut:
        place = draw(st.integers(0, len(text) - 1))
        text = (
            text[:place] + draw(st.sampled_from(['', '"', '}', '9', '\x00'])) + text[place + draw(st.integers(0, 3)) :]
        )
    encoding = draw(st.sampled_from(['utf-8'] * 6 + ['utf-8-sig', 'utf-16', 'utf-16-le', 'utf-32', 'latin-1']))
    return text.encode(encoding), not (changes or cut or encoding == 'latin-1')
