"""What can be wrong with a COCO file: each kind of fault, how bad it is and what becomes of the thing at fault."""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

ERROR = 'error'  # training does not start
WARNING = 'warning'  # training starts; what is left out or changed is told
NOTE = 'note'  # as it should be, worth knowing


class Kind(NamedTuple):
    """Severity; what MMDetection does with it; what ``--fix`` does."""

    severity: str
    effect: str
    fix: str


REMOVED = 'is removed'
CONFIG = 'cannot be mended: change the config'
KINDS = {
    # the file
    'section missing': Kind(ERROR, 'the file cannot be used', 'cannot be mended'),
    'section wrong': Kind(ERROR, 'the file cannot be used', 'cannot be mended'),
    'key twice': Kind(ERROR, 'the first of the two is lost', 'the last is kept'),
    # categories
    'category wrong': Kind(ERROR, 'MMDetection fails with a KeyError or TypeError', REMOVED),
    'category id missing': Kind(ERROR, 'MMDetection fails with a KeyError', REMOVED),
    'category id wrong': Kind(ERROR, 'MMDetection fails with a TypeError', REMOVED),
    'category id twice': Kind(ERROR, 'the boxes of one are trained as the other', 'the first is kept'),
    'category name missing': Kind(ERROR, 'MMDetection fails with a KeyError', REMOVED),
    'category name wrong': Kind(ERROR, 'no class can have that name', REMOVED),
    'category name twice': Kind(ERROR, 'labels of the classes after it are shifted', 'the first is kept'),
    'category empty': Kind(NOTE, 'the class is never trained', 'is kept'),
    # images
    'image wrong': Kind(ERROR, 'MMDetection fails with a TypeError', REMOVED),
    'image id missing': Kind(ERROR, 'MMDetection fails with a KeyError', REMOVED),
    'image id wrong': Kind(ERROR, 'MMDetection fails with a TypeError', REMOVED),
    'image id twice': Kind(ERROR, 'the boxes of both go to the last one', 'the first is kept'),
    'image id not an integer': Kind(WARNING, 'is used; some COCO tools want integers', 'is kept'),
    'image name missing': Kind(ERROR, 'MMDetection fails with a KeyError', REMOVED),
    'image name wrong': Kind(ERROR, 'MMDetection fails with a TypeError', REMOVED),
    'image name twice': Kind(WARNING, 'the image is used once for each entry', 'is kept'),
    'image size missing': Kind(ERROR, 'MMDetection fails with a KeyError', REMOVED),
    'image size wrong': Kind(ERROR, 'MMDetection fails, or leaves out every box of the image', REMOVED),
    'image empty': Kind(NOTE, 'is left out with filter_empty_gt, else trained as background', 'is kept'),
    # annotations
    'annotation wrong': Kind(ERROR, 'MMDetection fails with a TypeError', REMOVED),
    'annotation id missing': Kind(ERROR, 'MMDetection fails with a KeyError', 'gets a new id'),
    'annotation id wrong': Kind(ERROR, 'MMDetection fails with a TypeError', 'gets a new id'),
    'annotation id twice': Kind(ERROR, 'MMDetection stops: ids are not unique', 'gets a new id'),
    'annotation without image_id': Kind(ERROR, 'MMDetection fails with a KeyError', REMOVED),
    'annotation image_id wrong': Kind(ERROR, 'MMDetection fails, or leaves the box out', REMOVED),
    'annotation of no image': Kind(WARNING, 'the box is left out', REMOVED),
    'annotation without category_id': Kind(ERROR, 'MMDetection fails with a KeyError', REMOVED),
    'annotation category_id wrong': Kind(ERROR, 'MMDetection fails, or leaves the box out', REMOVED),
    'annotation of no category': Kind(WARNING, 'the box is left out', REMOVED),
    'annotation of another class': Kind(WARNING, 'the box is left out: its class is not in the config', 'is kept'),
    'ignored': Kind(WARNING, 'the box is left out: "ignore" is set', 'is kept'),
    'crowd': Kind(NOTE, 'is trained as a region to ignore', 'is kept'),
    'iscrowd wrong': Kind(WARNING, 'counts as a crowd, unless it is empty', 'becomes 0'),
    'box missing': Kind(ERROR, 'MMDetection fails with a KeyError', REMOVED),
    'box wrong': Kind(ERROR, 'MMDetection fails with a TypeError or ValueError', REMOVED),
    'box not finite': Kind(ERROR, 'the loss becomes NaN', REMOVED),
    'box of negative size': Kind(WARNING, 'the box is left out', REMOVED),
    'box of no size': Kind(WARNING, 'the box is left out', REMOVED),
    'box below 1 px': Kind(WARNING, 'the box is left out', REMOVED),
    'box outside the image': Kind(WARNING, 'the box is left out', REMOVED),
    'box partly outside': Kind(WARNING, 'is trained as it is; pipelines clip it', 'is clipped'),
    'box twice': Kind(WARNING, 'is trained twice', REMOVED),
    'area missing': Kind(ERROR, 'MMDetection fails with a KeyError', "becomes the box's"),
    'area wrong': Kind(ERROR, 'MMDetection fails, or evaluates it as of no size', "becomes the box's"),
    'area not positive': Kind(WARNING, 'the box is left out', "becomes the box's"),
    'segmentation wrong': Kind(WARNING, 'box detectors ignore it, others fail', 'the segmentation is removed'),
    # image files
    'image file missing': Kind(ERROR, 'training stops when it is read', REMOVED),
    'image file unreadable': Kind(ERROR, 'training stops when it is read', REMOVED),
    'image file truncated': Kind(WARNING, 'what is missing is trained as grey', REMOVED),
    'image file of another size': Kind(ERROR, 'its boxes are trained at wrong places', 'is kept: see which is right'),
    'image file rotated by EXIF': Kind(
        WARNING, 'is turned when it is read; boxes must be those of the turned image', 'is kept: see which is right'
    ),
    # the config
    'class not in the file': Kind(ERROR, 'it is never trained', CONFIG),
    'classes in another order': Kind(ERROR, 'MMDetection swaps their labels', CONFIG),
    'class not in the config': Kind(NOTE, 'its boxes are left out', 'is kept'),
    'num_classes': Kind(ERROR, 'the head has another number of classes', CONFIG),
}


class Fault(NamedTuple):
    """One fault: its kind, the thing at fault, such as ``annotation 17``, and what is wrong with it."""

    kind: str
    where: str
    detail: str

    def __str__(self) -> str:
        return f'{self.where}: {self.kind}{self.detail and ", " + self.detail}; {KINDS[self.kind].effect}'


class Report:
    """The faults of a file, and how many of its boxes are trained."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.faults: list[Fault] = []
        self.images = self.boxes = self.kept = 0

    def add(self, kind: str, where: str, detail: str = '') -> None:
        """Note a fault."""
        if kind not in KINDS:
            raise KeyError(kind)
        self.faults.append(Fault(kind, where, detail))

    def counts(self) -> Counter:
        """Number of faults of each kind."""
        return Counter(fault.kind for fault in self.faults)

    def of(self, *severities: str) -> Iterator[Fault]:
        """Faults of these severities."""
        return (fault for fault in self.faults if KINDS[fault.kind].severity in severities)

    @property
    def left_out(self) -> int:
        """Boxes of the file that are not trained."""
        return self.boxes - self.kept
