import csv
import json

from mixdet.report.detail_files import frequent_confusions, write_details


def test_files_of_an_evaluation(tmp_path, image, evaluation_details):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out/worst_9.jpg').write_bytes(b'of an earlier evaluation')
    gone = image._replace(path=str(tmp_path / 'gone.png'))
    content = write_details(evaluation_details(['cat', 'dog'], [gone, image]), tmp_path / 'out', samples=2)
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == [
        'best_1.jpg', 'confusion.png', 'details.json', 'images', 'iou.png', 'per_class.csv', 'precision_recall.png',
        'samples_1.jpg', 'worst_1.jpg',
    ]  # fmt: skip
    assert json.loads((tmp_path / 'out/details.json').read_text()) == content
    (record,) = content['pictures']['worst']
    assert record['counts'] == {'found': 1, 'confused': 0, 'missed': 1, 'false alarm': 1} and record['f1'] == 0.5
    with (tmp_path / 'out/per_class.csv').open() as file:
        assert [row['AP'] for row in csv.DictReader(file)] == ['0.5', '0.5']
    assert frequent_confusions(content) == [('dog', 'cat', 3), ('cat', 'dog', 2)]
