import pytest

from mixdet.report.rendering import breakable, format_boxes, format_count, format_duration, shown_pictures


def test_words_for_readers():
    assert [format_boxes(n, 'false alarm') for n in (1, 2)] == ['1 false alarm', '2 false alarms']
    assert format_boxes(1, 'confused') == '1 wrong class' and format_boxes(0, 'missed') == '0 missed'
    assert format_duration(3723.9) == '1:02:03'
    assert str(breakable('data/<set>/a.json')) == 'data/<wbr>&lt;set&gt;/<wbr>a.json'


def test_counts_for_readers():
    counts = [format_count(value) for value in (4_351_234, 788_800_000, None)]
    assert counts == ['4.35 M', '0.789 G', '-']


@pytest.mark.parametrize(('corners', 'style', 'marks'), [
    ((10, 10, 60, 30), 'left:10.00%;top:20.00%;width:50.00%;height:40.00%', ''),
    ((-5, -5, 120, 60), 'left:0.00%;top:0.00%;width:100.00%;height:100.00%', 'inside'),
    ((80, 25, 90, 40), 'left:80.00%;top:50.00%;width:10.00%;height:30.00%', 'left narrow'),
])  # fmt: skip
def test_boxes_are_placed_within_the_picture(tmp_path, corners, style, marks):
    (tmp_path / 'a.jpg').write_bytes(b'\xff\xd8\xff')
    box = dict(box=corners, label=0, name='cat', state='found')
    record = dict(bare='a.jpg', image='x/a.png', size=[100, 50], truth=[box], detections=[dict(box, score=0.5)])
    (shown,) = shown_pictures([record], tmp_path)
    (truth, [left]), (_, [right]) = shown['panels']
    assert truth == 'ground truth' and left['style'] == right['style'] == f'{style};--c:#19b98a'
    assert left['marks'] == marks and right['marks'] == marks.replace(' narrow', '')
    assert (left['text'], right['text'], right['title']) == ('cat', 'cat 0.50', 'cat 0.50, found')
    assert shown['aspect'] == 4.0 and shown['name'] == 'a.png'


@pytest.mark.parametrize('key', ['bare', 'picture'])
@pytest.mark.parametrize(
    'place', ['{root}/secret.jpg', '../secret.jpg', 'note.txt', '../report', '\0', 'a.jpg/b', 'x' * 999]
)
def test_only_pictures_of_the_report_get_into_the_page(tmp_path, key, place):
    """Whatever a stranger's details.json names."""
    folder = tmp_path / 'report'
    folder.mkdir()
    (tmp_path / 'secret.jpg').write_bytes(b'\xff\xd8\xff secret')
    (folder / 'note.txt').write_text('secret')
    (folder / 'a.jpg').write_bytes(b'\xff\xd8\xff')
    (folder / 'link.jpg').symlink_to(tmp_path / 'secret.jpg')
    assert shown_pictures([{key: place.format(root=tmp_path), 'image': 'a.png'}], folder) == []
    assert shown_pictures([{key: 'link.jpg', 'image': 'a.png'}], folder) == []
    assert len(shown_pictures([{key: 'a.jpg', 'image': 'a.png'}], folder)) == 1
