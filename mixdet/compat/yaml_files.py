"""YAML files are read without running anything that they name.

Defect answered: mmengine 0.10.7 reads them with ``yaml.Loader``, which calls any function that a file names
(``!!python/object/apply:os.system``). Can go when it reads them with ``yaml.SafeLoader``.
"""

import yaml
from mmengine.fileio.handlers import yaml_handler

TUPLE = 'tag:yaml.org,2002:python/tuple'  # which MMEngine writes


class Loader(getattr(yaml, 'CSafeLoader', yaml.SafeLoader)):  # type: ignore[misc]  # written in C where it was built
    """YAML's safe loader, which also reads tuples."""


def install() -> None:
    """Let MMEngine read YAML with ``Loader``."""
    Loader.add_constructor(TUPLE, lambda loader, node: tuple(loader.construct_sequence(node, deep=True)))
    yaml_handler.Loader = Loader
