"""Figures printed in the paper (arXiv 1907.09595); none of them was measured here."""

from typing import NamedTuple


class PaperRow(NamedTuple):
    """A row of Table 1, COCO at 320x320: parameters in millions, multiply-adds in billions, mAP in percent."""

    params: float
    macs: float
    map: float


TABLE1 = {
    'mobilenetv1-baseline3x3': PaperRow(5.12, 1.31, 21.7),
    'mobilenetv1-depthwise5x5': PaperRow(5.20, 1.38, 22.3),
    'mobilenetv1-mixconv35': PaperRow(5.16, 1.35, 22.2),
    'mobilenetv1-depthwise7x7': PaperRow(5.32, 1.47, 21.8),
    'mobilenetv1-mixconv357': PaperRow(5.22, 1.39, 22.4),
    'mobilenetv2-baseline3x3': PaperRow(4.35, 0.79, 21.5),
    'mobilenetv2-depthwise5x5': PaperRow(4.47, 0.87, 22.1),
    'mobilenetv2-mixconv35': PaperRow(4.41, 0.83, 22.1),
    'mobilenetv2-depthwise7x7': PaperRow(4.64, 0.98, 21.2),
    'mobilenetv2-mixconv357': PaperRow(4.49, 0.88, 22.3),
}
