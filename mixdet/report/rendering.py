"""What the report's pages share: templates, numbers in words, figures and pictures as parts of a page."""

import base64
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Optional

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from matplotlib.figure import Figure

from mixdet.engine.atomic import check_ours, write_text
from mixdet.evaluation.details import CONFUSED, FALSE_ALARM, FOUND, MISSED
from mixdet.evaluation.numbers import IOU_TYPES, STAT_TITLES, ap_title, format_number
from mixdet.report.card import describe_latency
from mixdet.report.figures import MATRIX, to_svg
from mixdet.report.pictures import COLORS, IGNORED, box_color, box_text
from mixdet.report.start import described_sources
from mixdet.text import printable

STATES = {FOUND: 'found', CONFUSED: 'wrong class', MISSED: 'missed', FALSE_ALARM: 'false alarms'}
JPEG = b'\xff\xd8\xff'  # how such a file begins
GENERATOR = '<meta name="generator" content="mixdet">'  # in the head of every page
NARROW = 12  # per cent of the image's width; the name of a narrower ground truth box is only shown when enlarged


def write_page(template: str, path: Path, **values: object) -> Path:
    """Fill ``template`` with ``values`` and write it to ``path``, whole at any time: a reader may reload it.

    Raises UserError if there is a page that mixdet did not write.
    """
    check_ours(path, GENERATOR)
    write_text(path, _environment().get_template(template).render(**values))
    return path


def svgs(figures: Mapping[str, tuple[str, Figure]]) -> dict[str, tuple[str, Markup]]:
    """Titles and figures by name, the figures as SVG elements."""
    return {name: (title, Markup(to_svg(figure, title))) for name, (title, figure) in figures.items()}  # noqa: S704  (escaped)


def shown_pictures(records: list[dict], folder: Path) -> list[dict]:
    """What the page needs of pictures whose files lie in ``folder``: the content, the boxes in per cent of its sides.

    A picture is left out if its file is not there. Those of mixdet 0.2 have their boxes drawn on them, and none here.
    """
    shown = []
    for record in records:
        file = folder / str(record.get('bare') or record.get('picture'))
        data = _picture_data(file, folder)
        if not data:
            continue
        panels = []
        if 'size' in record:
            width, height = record['size']
            panels = [
                (title, [_shown_box(box, width, height, key) for box in record[key]])
                for key, title in (('truth', 'ground truth'), ('detections', 'detections'))
                if key in record
            ]
        shown.append(
            dict(
                record,
                name=Path(record['image']).name,
                data=f'data:image/jpeg;base64,{data}',
                panels=panels,
                aspect=record['size'][0] / record['size'][1] * len(panels) if panels else 2.7,
            )
        )
    return shown


def format_count(value: Optional[int]) -> str:
    """Parameters or multiply-adds: 4.35 M, 0.79 G."""
    if not isinstance(value, int):
        return '-'
    return f'{value / 1e9:.3g} G' if value >= 1e8 else f'{value / 1e6:.3g} M'


def format_duration(seconds: float) -> str:
    """Hours, minutes, seconds."""
    return str(timedelta(seconds=int(seconds)))


def format_boxes(counted: int, state: str) -> str:
    """Boxes of one of the ``STATES``: 3 found, 1 false alarm."""
    return f'{counted} {"false alarm" if state == FALSE_ALARM and counted == 1 else STATES[state]}'


def breakable(path: str) -> Markup:
    """A path that a browser breaks between its parts, not inside a name."""
    return Markup('/<wbr>').join(printable(path).split('/'))


def _shown_box(box: dict, width: float, height: float, side: str) -> dict:
    """A box as the template places it: left, top, width and height in per cent of the image, within it."""
    x1, x2 = (min(max(100 * value / width, 0), 100) for value in box['box'][::2])
    y1, y2 = (min(max(100 * value / height, 0), 100) for value in box['box'][1::2])
    text = box_text(box['name'], box.get('score'))
    marks = [
        ('dashed', box['state'] in (MISSED, IGNORED)),
        ('inside', y1 < 7),  # its label would lie above the image
        ('left', x1 > 70),  # ... or to the right of it
        ('narrow', side == 'truth' and box['state'] != MISSED and x2 - x1 < NARROW),
    ]
    return dict(
        style=f'left:{x1:.2f}%;top:{y1:.2f}%;width:{x2 - x1:.2f}%;height:{y2 - y1:.2f}%;'
        f'--c:{box_color(box["label"], box["state"])}',
        text=text,
        title=f'{text}, {STATES.get(box["state"], box["state"])}',
        marks=' '.join(name for name, holds in marks if holds),
    )


def _picture_data(file: Path, folder: Path) -> str:
    """A picture as base64; empty unless ``file`` is a JPEG inside ``folder``, whatever a record of it says."""
    try:
        file.resolve().relative_to(folder.resolve())
        content = file.read_bytes()
    except (ValueError, OSError):
        return ''
    return base64.b64encode(content).decode() if content.startswith(JPEG) else ''


def _shown(value: object) -> object:
    """A value as it is put into a page: text without control characters, or the bytes of a name that is no UTF-8."""
    if isinstance(value, Path):
        value = str(value)
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return '\n'.join(map(printable, value.expandtabs().split('\n')))


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name('templates')),
        autoescape=True,
        finalize=_shown,
        trim_blocks=True,
    )
    environment.filters.update(
        number=format_number, count=format_count, duration=format_duration, boxes=format_boxes, breakable=breakable,
        latency=describe_latency, sources=described_sources,
    )  # fmt: skip
    environment.globals.update(
        colors=COLORS, states=STATES, titles=STAT_TITLES, iou_types=IOU_TYPES, ap_title=ap_title, matrix_classes=MATRIX
    )
    return environment
