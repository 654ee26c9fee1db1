"""The issues that COCO-format data can have: how severe each is, its effect, and what ``--fix`` does about it."""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

ERROR = 'error'  # training does not start
WARNING = 'warning'  # training starts, and what is left out or changed is printed
NOTE = 'note'  # legitimate, but worth knowing


class IssueKind(NamedTuple):
    """One kind of issue.

    Attributes:
        severity: ``ERROR``, ``WARNING`` or ``NOTE``.
        effect: what it does to a training with MMDetection.
        fix: what ``tools/check_dataset.py --fix`` does about it.
    """

    severity: str
    effect: str
    fix: str


REMOVED = 'removed'
KEPT = 'kept'
NEW_ID = 'gets a new id'
BOX_AREA = 'set to the area of the box'
CHECK = 'kept; check which is right'
CONFIG = 'not fixable: change the config'
ISSUE_KINDS = {
    # the file
    'missing section': IssueKind(ERROR, 'the file cannot be used', 'not fixable'),
    'invalid section': IssueKind(ERROR, 'the file cannot be used', 'not fixable'),
    'duplicate key': IssueKind(ERROR, 'all its values but the last are lost', 'the last value is kept'),
    # categories
    'invalid category': IssueKind(ERROR, 'MMDetection fails with a KeyError or TypeError', REMOVED),
    'missing category id': IssueKind(ERROR, 'MMDetection fails with a KeyError', REMOVED),
    'invalid category id': IssueKind(ERROR, 'MMDetection fails with a TypeError', REMOVED),
    'duplicate category id': IssueKind(ERROR, 'boxes of one class are trained as the other', 'the first is kept'),
    'missing category name': IssueKind(ERROR, 'MMDetection fails with a KeyError', REMOVED),
    'invalid category name': IssueKind(ERROR, 'no class can have that name', REMOVED),
    'duplicate category name': IssueKind(ERROR, 'the labels of all later classes are shifted', 'the first is kept'),
    'category without boxes': IssueKind(NOTE, 'the class is never trained', KEPT),
    # images
    'invalid image': IssueKind(ERROR, 'MMDetection fails with a TypeError', REMOVED),
    'missing image id': IssueKind(ERROR, 'MMDetection fails with a KeyError', REMOVED),
    'invalid image id': IssueKind(ERROR, 'MMDetection fails with a TypeError', REMOVED),
    'duplicate image id': IssueKind(ERROR, 'the last of these images gets the boxes of all', 'the first is kept'),
    'image id not an integer': IssueKind(WARNING, 'the image is used; some COCO tools need integers', KEPT),
    'missing file name': IssueKind(ERROR, 'MMDetection fails with a KeyError', REMOVED),
    'invalid file name': IssueKind(ERROR, 'MMDetection fails with a TypeError', REMOVED),
    'duplicate file name': IssueKind(WARNING, 'the image is used once for each entry', KEPT),
    'missing image size': IssueKind(ERROR, 'MMDetection fails with a KeyError', REMOVED),
    'invalid image size': IssueKind(ERROR, 'MMDetection fails, or leaves out every box of the image', REMOVED),
    'image without boxes': IssueKind(NOTE, 'the image is left out with filter_empty_gt, else it is background', KEPT),
    # annotations
    'invalid annotation': IssueKind(ERROR, 'MMDetection fails with a TypeError', REMOVED),
    'missing annotation id': IssueKind(ERROR, 'MMDetection fails with a KeyError', NEW_ID),
    'invalid annotation id': IssueKind(ERROR, 'MMDetection fails with a TypeError', NEW_ID),
    'duplicate annotation id': IssueKind(ERROR, 'MMDetection stops: ids are not unique', NEW_ID),
    'missing image_id': IssueKind(ERROR, 'MMDetection fails with a KeyError', REMOVED),
    'invalid image_id': IssueKind(ERROR, 'MMDetection fails, or leaves the box out', REMOVED),
    'unknown image_id': IssueKind(WARNING, 'the box is left out', REMOVED),
    'missing category_id': IssueKind(ERROR, 'MMDetection fails with a KeyError', REMOVED),
    'invalid category_id': IssueKind(ERROR, 'MMDetection fails, or leaves the box out', REMOVED),
    'unknown category_id': IssueKind(WARNING, 'the box is left out', REMOVED),
    'class not trained': IssueKind(WARNING, 'the box is left out: its class is not in the config', KEPT),
    'ignored box': IssueKind(WARNING, 'the box is left out: "ignore" is set', KEPT),
    'crowd': IssueKind(NOTE, 'the box is trained as a region to ignore', KEPT),
    'invalid iscrowd': IssueKind(WARNING, 'the box counts as a crowd if the value is true', 'set to 0'),
    'missing box': IssueKind(ERROR, 'MMDetection fails with a KeyError', REMOVED),
    'invalid box': IssueKind(ERROR, 'MMDetection fails with a TypeError or ValueError', REMOVED),
    'box not finite': IssueKind(ERROR, 'the loss becomes NaN', REMOVED),
    'negative box size': IssueKind(WARNING, 'the box is left out', REMOVED),
    'zero box size': IssueKind(WARNING, 'the box is left out', REMOVED),
    'box below 1 px': IssueKind(WARNING, 'the box is left out', REMOVED),
    'box outside the image': IssueKind(WARNING, 'the box is left out', REMOVED),
    'box partly outside the image': IssueKind(WARNING, 'the box is used as it is; pipelines clip it', 'clipped'),
    'duplicate box': IssueKind(WARNING, 'the box is trained twice', REMOVED),
    'missing area': IssueKind(ERROR, 'MMDetection fails with a KeyError', BOX_AREA),
    'invalid area': IssueKind(ERROR, 'MMDetection fails, or counts the box in no size range', BOX_AREA),
    'area not positive': IssueKind(WARNING, 'the box is left out', BOX_AREA),
    'invalid segmentation': IssueKind(WARNING, 'box detectors ignore it, mask detectors fail', REMOVED),
    # image files
    'missing image file': IssueKind(ERROR, 'training stops when it is read', REMOVED),
    'unreadable image file': IssueKind(ERROR, 'training stops when it is read', REMOVED),
    'truncated image file': IssueKind(WARNING, 'the missing part is trained as grey', REMOVED),
    'image file of another size': IssueKind(ERROR, 'its boxes are trained in the wrong place', CHECK),
    'image rotated by EXIF': IssueKind(WARNING, 'the image is rotated when it is read; its boxes must fit that', CHECK),
    # the config
    'class not in the file': IssueKind(ERROR, 'it is never trained', CONFIG),
    'classes in another order': IssueKind(ERROR, 'MMDetection swaps their labels', CONFIG),
    'class not in the config': IssueKind(NOTE, 'its boxes are left out', KEPT),
    'wrong number of classes': IssueKind(ERROR, 'a label has no output, or an output no label', CONFIG),
}


class Issue(NamedTuple):
    """One issue.

    Attributes:
        kind: a key of ``ISSUE_KINDS``.
        where: the place, such as ``annotation 17``.
        detail: the offending value, or empty.
    """

    kind: str
    where: str
    detail: str

    def __str__(self) -> str:
        return f'{self.where}: {self.kind}{self.detail and ", " + self.detail}; {ISSUE_KINDS[self.kind].effect}'


class IssueLog:
    """The issues of one annotation file.

    Args:
        file: name of the file.

    Attributes:
        issues (list[Issue]): the issues, in the order in which they were found.
        images, boxes (int): number of entries in the file.
        trained (int): how many of the boxes a training uses.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self.issues: list[Issue] = []
        self.images = self.boxes = self.trained = 0

    def add(self, kind: str, where: str, detail: str = '') -> None:
        """Append an issue. Raises KeyError if ``kind`` is not in ``ISSUE_KINDS``."""
        if kind not in ISSUE_KINDS:
            raise KeyError(kind)
        self.issues.append(Issue(kind, where, detail))

    def counts(self) -> Counter[str]:
        """The number of issues of each kind."""
        return Counter(issue.kind for issue in self.issues)

    def of(self, *severities: str) -> Iterator[Issue]:
        """The issues of these severities."""
        return (issue for issue in self.issues if ISSUE_KINDS[issue.kind].severity in severities)

    @property
    def left_out(self) -> int:
        """The number of boxes that a training does not use."""
        return self.boxes - self.trained
