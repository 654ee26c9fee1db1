"""What the tests of the formats for phones and small computers share."""

import importlib.util

import numpy as np
import pytest

from mixdet.deploy.export import CalibrationImages, export, export_metadata
from mixdet.deploy.exported import ExportedDetector, load_exported
from mixdet.deploy.formats import format_of
from mixdet.deploy.formats.base import PRECISIONS, file_size
from mixdet.deploy.formats.sidecar import write_sidecar
from mixdet.deploy.inference import Detector
from mixdet.deploy.parity import compare_detections, detection_arrays
from mixdet.errors import UserError

# of each precision, for a network with random weights: boxes in px, scores, share without a counterpart
WITHIN = dict(fp32=(0.01, 1e-4, 0), fp16=(3, 0.05, 0.1), int8=(0, 0, 0))


def needs(*packages: str) -> pytest.MarkDecorator:
    """Mark tests that need optional packages, which CI does not have; docs/deploy.md says how to run them."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f'needs {", ".join(missing)}')


def write(tiny, path, images, precision='fp32'):
    detector = Detector(*tiny, fuse=False)
    metadata = export_metadata(detector, tiny[0], True)
    calibration = CalibrationImages(detector, images) if precision == 'int8' else None
    return export(detector, metadata, path, format_of(path).name, precision=precision, calibration=calibration)


def check_a_whole_detector(tiny, folder, suffix, images, precisions=PRECISIONS):
    """In all precisions its detections are the original's, on two threads, and files shrink."""
    detector = Detector(*tiny, score_thr=0.0)
    originals = [detection_arrays(sample) for sample in detector.predict_samples(images)]
    sizes = []
    for precision in precisions:
        boxes, scores, share = WITHIN[precision]
        path = folder / f'{precision}{suffix}'
        metadata = write(tiny, path, images, precision)
        assert not metadata.nms and metadata.thresholds.max_per_img == 10
        detector.model = ExportedDetector(str(path), detector.cfg.model.data_preprocessor, trusted=True, threads=2)
        assert detector.model.metadata == metadata
        found = [detection_arrays(detector.predict_samples([image])[0]) for image in images]
        difference = compare_detections(originals, found, score_thr=0.0)
        assert difference.detections == 10 * len(images)
        if precision != 'int8':  # which turns the order of a random network's detections; AP on real data is measured
            assert difference.boxes < boxes and 0 < difference.scores < scores and difference.share <= share, difference
        sizes.append(file_size(path))
    assert all(larger > 1.4 * smaller for larger, smaller in zip(sizes, sizes[1:])), sizes


def check_other_files_are_refused(path):
    """An empty, a foreign and a long file; each with metadata of its own."""
    for content in (b'', b'nothing', bytes(10**5), b'\xff' * 10**4):
        path.write_bytes(content)
        write_sidecar(path, dict(classes=['a']))
        with pytest.raises(UserError, match='is not a detector exported by') as error:
            load_exported(path, trusted=True)
        assert '\n' not in str(error.value)


def check_damaged_files(whole, folder):
    """A file that has changed since it was written is refused before its runtime sees it."""
    content, rng = whole.read_bytes(), np.random.default_rng(0)
    beside = whole.with_name(whole.name + '.json').read_bytes()
    for i in range(20):
        changed = np.frombuffer(content, np.uint8).copy()
        if i % 2:
            changed[rng.integers(len(changed), size=4)] ^= rng.integers(1, 256, 4, dtype=np.uint8)
        else:
            changed = changed[: rng.integers(len(changed))]
        (folder / f'{i}{whole.suffix}').write_bytes(changed.tobytes())
        (folder / f'{i}{whole.suffix}.json').write_bytes(beside)
        with pytest.raises(UserError, match='belongs to another file than .*, or that was changed'):
            load_exported(folder / f'{i}{whole.suffix}', trusted=True)
