"""Formatting a config once instead of for every checkpoint.

Defect answered: mmengine 0.10.7 stores the config in each checkpoint as ``cfg.pretty_text``, which runs the formatter
yapf every time: 0.3 s for a detector's config. Can go when ``Runner`` keeps the text.
"""

import functools
from typing import Any


def install() -> None:
    """Cache the formatter's latest results."""
    module = formatters_module()
    format_code = module.FormatCode
    if hasattr(format_code, '__wrapped__'):  # by an earlier call
        return

    @functools.lru_cache(maxsize=4)
    def cached(text: str, style: tuple, options: tuple) -> tuple[str, bool]:
        return format_code(text, style_config=dict(style), **dict(options))

    def formatted(text: str, style_config: dict, **options: Any) -> tuple[str, bool]:
        return cached(text, tuple(style_config.items()), tuple(options.items()))

    module.FormatCode = functools.update_wrapper(formatted, cached)


def formatters_module() -> Any:
    """The module in which ``Config.pretty_text`` finds the formatter: onedl-mmengine imports it from yapf each time."""
    from mmengine.config import config

    if hasattr(config, 'FormatCode'):
        return config
    from yapf.yapflib import yapf_api

    return yapf_api
