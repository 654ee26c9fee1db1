"""A test's predictions in a file."""

from pathlib import Path
from typing import Optional

from mmdet.evaluation import DumpDetResults
from mmengine.fileio import dump

from mixdet.engine.atomic import new_file
from mixdet.errors import UserError
from mixdet.registry import METRICS
from mixdet.text import print


@METRICS.register_module()
class DumpPredictions(DumpDetResults):
    """MMDetection's ``DumpDetResults`` into a new file, which is there once it is whole.

    Attributes:
        failure (UserError | None): why it could not be written. It is not raised, so that the numbers of the other
            metrics are not lost.
    """

    failure: Optional[UserError] = None

    def compute_metrics(self, results: list) -> dict:
        """Write the file."""
        try:
            with new_file(Path(self.out_file_path)) as partial:
                dump(results, str(partial))
        except UserError as error:
            self.failure = error
        else:
            print(f'Predictions: {self.out_file_path}')
        return {}
