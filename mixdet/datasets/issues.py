"""The issues that COCO-format data can have: how severe each is, its effect, and what ``--fix`` does about it."""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

ERROR = 'error'  # training does not start
WARNING = 'warning'  # training starts, and what is left out or changed is printed
NOTE = 'note'  # legitimate, but worth knowing
SEVERITIES = (ERROR, WARNING, NOTE)

# what a file is for
TRAINING = 'training'
EVALUATION = 'evaluation'
ANY = 'any'  # not known: it must be fit for both


class IssueKind(NamedTuple):
    """One kind of issue.

    Attributes:
        severity: ``ERROR``, ``WARNING`` or ``NOTE``.
        effect: what it does to a training with MMDetection.
        fix: what ``tools/check_dataset.py --fix`` does about it.
        evaluation_effect: what it does to an evaluation, where that differs.
        evaluation_severity: how severe it is in data for an evaluation, where that differs.
    """

    severity: str
    effect: str
    fix: str
    evaluation_effect: str = ''
    evaluation_severity: str = ''


REMOVED = 'removed'
KEPT = 'kept'
NEW_ID = 'gets a new id'
CONVERTED = 'converted'
NUMBERED = 'converted, or gets a new id that its boxes follow'
NAMED = 'named after its value or id'
MEASURED = 'converted, or read from the image file if --images is given, else removed'
BOX_AREA = 'set to the area of the box'
CHECK = 'kept; check which is right'
CONFIG = 'not fixable: change the config'
NOT_FIXABLE = 'not fixable'
CROWDS_TO_OBJECTS = 'kept; made objects with --crowds-to-objects'
IF_OBJECTS = 'if they are objects, tools/check_dataset.py --fix OUT.json --crowds-to-objects makes them so'
HARD_TO_HIT = 'it is evaluated, and no detection can match it'
ISSUE_KINDS = {
    # the file
    'text encoding': IssueKind(ERROR, 'MMDetection reads only UTF-8 without a byte-order mark', 'written as UTF-8'),
    'missing section': IssueKind(ERROR, 'the file cannot be used', NOT_FIXABLE),
    'invalid section': IssueKind(ERROR, 'the file cannot be used', NOT_FIXABLE),
    'duplicate key': IssueKind(ERROR, 'all its values but the last are lost', 'the last value is kept'),
    'no images': IssueKind(ERROR, 'the data set is empty', NOT_FIXABLE),
    'no annotations': IssueKind(
        WARNING, 'its images are trained as background, or left out with filter_empty_gt', KEPT,
        'nothing can be evaluated; its images can be predicted on',
    ),
    'no usable box': IssueKind(
        ERROR, 'a training on it would learn nothing', KEPT, 'no box is evaluated: every number will be -', WARNING
    ),
    'only crowds': IssueKind(
        ERROR, 'crowds are regions to ignore, a training on them would learn nothing; exporters of masks, such as '
        "CVAT's, write iscrowd 1 everywhere", 'made objects: iscrowd 0',
        "crowds are regions to ignore, every number will be -; exporters of masks, such as CVAT's, write iscrowd 1 "
        'everywhere, which tools/check_dataset.py --fix OUT.json mends', WARNING,
    ),
    'mostly crowds': IssueKind(
        WARNING, f'crowds are regions to ignore, not trained; {IF_OBJECTS}', CROWDS_TO_OBJECTS,
        f'crowds are regions to ignore, not evaluated; {IF_OBJECTS}',
    ),
    # categories
    'invalid category': IssueKind(ERROR, 'MMDetection fails with a KeyError or TypeError', REMOVED),
    'missing category id': IssueKind(ERROR, 'MMDetection fails with a KeyError', REMOVED),
    'invalid category id': IssueKind(ERROR, 'MMDetection and pycocotools need an integer', NUMBERED),
    'category id not an integer': IssueKind(
        WARNING, 'the class is trained; an evaluation needs integers', NUMBERED, 'the evaluation fails', ERROR
    ),
    'duplicate category id': IssueKind(ERROR, 'boxes of one class get the label of the other', 'the first is kept'),
    'missing category name': IssueKind(ERROR, 'MMDetection fails with a KeyError', NAMED),
    'invalid category name': IssueKind(ERROR, 'no class can have that name', NAMED),
    'duplicate category name': IssueKind(
        ERROR, 'the labels of all later classes are shifted', 'the one with most boxes gets the boxes of all'
    ),
    'category without boxes': IssueKind(NOTE, 'the class is never trained', KEPT, 'the class gets no AP'),
    # images
    'invalid image': IssueKind(ERROR, 'MMDetection fails with a TypeError', REMOVED),
    'missing image id': IssueKind(ERROR, 'MMDetection fails with a KeyError', REMOVED),
    'invalid image id': IssueKind(ERROR, 'MMDetection and pycocotools need an integer', NUMBERED),
    'duplicate image id': IssueKind(ERROR, 'the last of these images gets the boxes of all', 'the first is kept'),
    'image id not an integer': IssueKind(
        WARNING, 'the image is trained; an evaluation needs integers', NUMBERED, 'the evaluation fails', ERROR
    ),
    'missing file name': IssueKind(ERROR, 'MMDetection fails with a KeyError', REMOVED),
    'invalid file name': IssueKind(ERROR, 'MMDetection fails with a TypeError', REMOVED),
    'duplicate file name': IssueKind(WARNING, 'the image is used once for each entry', KEPT),
    'missing image size': IssueKind(ERROR, 'MMDetection fails with a KeyError', MEASURED),
    'invalid image size': IssueKind(ERROR, 'MMDetection fails, or leaves out every box of the image', MEASURED),
    'image without boxes': IssueKind(
        NOTE, 'the image is left out with filter_empty_gt, else it is background', KEPT,
        'every detection in the image is a false one',
    ),
    'image too small': IssueKind(WARNING, 'the image and its boxes are left out: filter_cfg.min_size is larger', KEPT),
    # annotations
    'invalid annotation': IssueKind(ERROR, 'MMDetection fails with a TypeError', REMOVED),
    'missing annotation id': IssueKind(ERROR, 'MMDetection fails with a KeyError', NEW_ID),
    'invalid annotation id': IssueKind(ERROR, 'MMDetection and pycocotools need an integer', NEW_ID),
    'annotation id not an integer': IssueKind(
        NOTE, 'the box is trained; an evaluation needs integers', NEW_ID, 'the evaluation fails', ERROR
    ),
    'duplicate annotation id': IssueKind(ERROR, 'MMDetection stops: ids are not unique', NEW_ID),
    'missing image_id': IssueKind(ERROR, 'MMDetection fails with a KeyError', REMOVED),
    'invalid image_id': IssueKind(ERROR, 'MMDetection fails, or leaves the box out', 'converted, or removed'),
    'unknown image_id': IssueKind(WARNING, 'the box is left out', REMOVED),
    'image_id of another type': IssueKind(WARNING, "the box is left out: its image's id has another type", CONVERTED),
    'missing category_id': IssueKind(ERROR, 'MMDetection fails with a KeyError', REMOVED),
    'invalid category_id': IssueKind(ERROR, 'MMDetection fails, or leaves the box out', 'converted, or removed'),
    'unknown category_id': IssueKind(WARNING, 'the box is left out', REMOVED),
    'category_id of another type': IssueKind(
        WARNING, "the box is left out: its category's id has another type", CONVERTED
    ),
    'class not trained': IssueKind(
        WARNING, 'the box is left out: its class is not in the config', KEPT
    ),
    'ignored box': IssueKind(
        WARNING, 'the box is left out: "ignore" is set', KEPT, 'the box is evaluated: COCO does not read "ignore"'
    ),
    'crowd': IssueKind(
        NOTE, 'the box is a region to ignore and is not trained', KEPT,
        'the box is a region to ignore: detections in it count neither way',
    ),
    'invalid iscrowd': IssueKind(
        WARNING, 'the box is a crowd, which is not trained, if the value is true in Python', 'converted, or set to 0',
        'the evaluation fails, or takes the box for a crowd', ERROR,
    ),
    'missing box': IssueKind(ERROR, 'MMDetection fails with a KeyError', 'made from its polygons, or removed'),
    'invalid box': IssueKind(ERROR, 'MMDetection fails with a TypeError or ValueError', 'converted, or removed'),
    'box not finite': IssueKind(ERROR, 'the loss becomes NaN', REMOVED, 'no detection can match it'),
    'negative box size': IssueKind(WARNING, 'the box is left out', REMOVED, HARD_TO_HIT),
    'zero box size': IssueKind(WARNING, 'the box is left out', REMOVED, HARD_TO_HIT),
    'box below 1 px': IssueKind(WARNING, 'the box is left out', REMOVED, 'it is evaluated, and hard to match'),
    'box outside the image': IssueKind(WARNING, 'the box is left out', REMOVED, HARD_TO_HIT),
    'box partly outside the image': IssueKind(
        WARNING, 'the box is used as it is; pipelines clip it', 'clipped', 'detections are clipped, the box is not'
    ),
    'duplicate box': IssueKind(
        WARNING, 'the box is trained twice', REMOVED, 'the box is evaluated twice; one of the two is missed'
    ),
    'missing area': IssueKind(ERROR, 'MMDetection fails with a KeyError', BOX_AREA),
    'invalid area': IssueKind(ERROR, 'MMDetection fails, or counts the box in no size range', BOX_AREA),
    'area not positive': IssueKind(WARNING, 'the box is left out', BOX_AREA, 'it counts as small, or in no size range'),
    'invalid segmentation': IssueKind(WARNING, 'box detectors ignore it, mask detectors fail', REMOVED),
    # image files
    'missing image file': IssueKind(ERROR, 'training stops when it is read', REMOVED, 'the run stops when it is read'),
    'backslash in file name': IssueKind(
        ERROR, 'training stops when it is read: only Windows takes a backslash for /', 'written with /',
        'the run stops when it is read: only Windows takes a backslash for /',
    ),
    'unreadable image file': IssueKind(
        ERROR, 'training stops when it is read', REMOVED, 'the run stops when it is read'
    ),
    'truncated image file': IssueKind(
        WARNING, 'the missing part is trained as grey', REMOVED, 'the missing part is predicted on as grey'
    ),
    'image file of another size': IssueKind(
        ERROR, 'its boxes are trained in the wrong place', CHECK, 'its boxes are evaluated in the wrong place'
    ),
    'image file of other channels': IssueKind(
        ERROR, 'the data preprocessor stops: it takes three', REMOVED
    ),
    'image file not finite': IssueKind(ERROR, 'the loss becomes NaN', REMOVED, 'its detections are NaN'),
    'image rotated by EXIF': IssueKind(WARNING, 'the image is rotated when it is read; its boxes must fit that', CHECK),
    # the config
    'class not in the file': IssueKind(ERROR, 'it is never trained', CONFIG, 'it gets no AP'),
    'classes in another order': IssueKind(ERROR, 'MMDetection swaps their labels', CONFIG),
    'class not in the config': IssueKind(NOTE, 'its boxes are left out', KEPT),
    'indices out of range': IssueKind(ERROR, 'MMDetection fails with an IndexError', CONFIG),
    'wrong number of classes': IssueKind(ERROR, 'a label has no output, or an output no label', CONFIG),
}  # fmt: skip


class Issue(NamedTuple):
    """One issue.

    Attributes:
        kind: a key of ``ISSUE_KINDS``.
        where: the place, such as ``annotation 17``.
        detail: the offending value, or empty.
        role: what the file is for: ``TRAINING``, ``EVALUATION`` or ``ANY``.
    """

    kind: str
    where: str
    detail: str
    role: str = ANY

    @property
    def severity(self) -> str:
        """How severe the issue is in this role; if that is not known, the worse of the two."""
        kind = ISSUE_KINDS[self.kind]
        evaluation = kind.evaluation_severity or kind.severity
        possible = {TRAINING: (kind.severity,), EVALUATION: (evaluation,)}.get(self.role, (kind.severity, evaluation))
        return min(possible, key=SEVERITIES.index)

    @property
    def effect(self) -> str:
        """What the issue does in this role."""
        kind = ISSUE_KINDS[self.kind]
        worse_there = self.role == ANY and self.severity != kind.severity
        return kind.evaluation_effect or kind.effect if worse_there or self.role == EVALUATION else kind.effect

    def __str__(self) -> str:
        return f'{self.where}: {self.kind}{self.detail and ", " + self.detail}; {self.effect}'


class IssueLog:
    """The issues of one annotation file.

    Args:
        file: name of the file.
        role: what it is for: ``TRAINING``, ``EVALUATION`` or ``ANY``.

    Attributes:
        issues (list[Issue]): the issues, in the order in which they were found.
        images, boxes (int): number of entries in the file.
        trained (int): how many of the boxes a training uses, without crowds.
        evaluated (int): how many of the boxes an evaluation wants to be found, without crowds.
        crowds (int): how many more are regions to ignore in such a training or evaluation.
    """

    def __init__(self, file: str, role: str = ANY) -> None:
        self.file = file
        self.role = role
        self.issues: list[Issue] = []
        self.images = self.boxes = self.trained = self.evaluated = self.crowds = 0

    def add(self, kind: str, where: str, detail: str = '') -> None:
        """Append an issue. Raises KeyError if ``kind`` is not in ``ISSUE_KINDS``."""
        if kind not in ISSUE_KINDS:
            raise KeyError(kind)
        self.issues.append(Issue(kind, where, detail, self.role))

    def counts(self) -> Counter[str]:
        """The number of issues of each kind."""
        return Counter(issue.kind for issue in self.issues)

    def of(self, *severities: str) -> Iterator[Issue]:
        """The issues of these severities."""
        return (issue for issue in self.issues if issue.severity in severities)

    @property
    def left_out(self) -> int:
        """The number of boxes that a training, or an evaluation, does not use at all."""
        return self.boxes - self.used - self.crowds

    @property
    def used(self) -> int:
        """``trained``, or in data for an evaluation ``evaluated``."""
        return self.evaluated if self.role == EVALUATION else self.trained

    def summary(self) -> str:
        """How many boxes are used, in one line."""
        use = 'evaluated' if self.role == EVALUATION else 'trained'
        crowds = f'{self.crowds} are crowds, which are ignored, ' if self.crowds else ''
        return f'{self.file}: {self.used} of {self.boxes} boxes are {use}, {crowds}{self.left_out} are left out'
