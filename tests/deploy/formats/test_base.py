import json
import sys

import pytest

from mixdet.deploy.formats import FORMATS, format_of, suffixes
from mixdet.deploy.formats.base import PRECISIONS, Metadata, Thresholds, file_size

WHOLE = Metadata(
    ('a', 'b'), (8, 16), (0.0, 1.0, 2.0), (1.0,) * 3, 'Resize', False, 'c', '1', Thresholds(0.02, 0.6, 20, 800)
)


def test_metadata_survive_json():
    assert Metadata.from_json(json.loads(json.dumps(WHOLE.to_json()))) == WHOLE
    older = {key: value for key, value in WHOLE.to_json().items() if key != 'thresholds'}
    assert Metadata.from_json(older) == WHOLE._replace(thresholds=None)


@pytest.mark.parametrize(
    'change',
    [
        dict(input_size=[8]), dict(input_size=['8', '8']), dict(mean=[0.0]), dict(std=['1', '1', '1']),
        dict(classes=[1]), dict(thresholds=dict(score_thr=0.1)), dict(thresholds=[1]),
    ],
)  # fmt: skip
def test_other_metadata_are_refused(change):
    with pytest.raises((TypeError, ValueError)):
        Metadata.from_json({**WHOLE.to_json(), **change})


def test_the_table():
    """Suffixes tell formats apart, and an extra names what is to be installed."""
    assert len({row.suffix for row in FORMATS.values()}) == len(FORMATS)
    for name, row in FORMATS.items():
        assert row.name == name and f'{row.suffix}' in suffixes().split(', ')
        assert (
            row.precisions == tuple(each for each in PRECISIONS if each in row.precisions)
            and row.precisions[0] == 'fp32'
        )
        assert bool(row.packages) == bool(row.extra) and row.runtime
        assert format_of(f'some/a{row.suffix}') == format_of(f'some/a{row.suffix}/') == row
    assert format_of('a.pth') is None


def test_where_a_format_runs(monkeypatch):
    row = FORMATS['onnx']._replace(platforms=('darwin',))
    for platform, runs in (('darwin', True), ('linux', False)):
        monkeypatch.setattr(sys, 'platform', platform)
        assert row.runs_here == runs and FORMATS['onnx'].runs_here


def test_size_of_files_and_folders(tmp_path):
    (tmp_path / 'a/b').mkdir(parents=True)
    (tmp_path / 'a/one').write_bytes(b'123')
    (tmp_path / 'a/b/two').write_bytes(b'45')
    assert (file_size(tmp_path / 'a'), file_size(tmp_path / 'a/one')) == (5, 3)
