"""A config is formatted once, not for every checkpoint.

Defect answered: mmengine 0.10.7 stores the config in each checkpoint as ``cfg.pretty_text``, which runs the formatter
yapf every time: 0.3 s of a detector's config. Can go when ``Runner`` keeps the text.
"""

import functools


def install() -> None:
    """Remember the formatter's last results."""
    from mmengine.config import config

    format_code = config.FormatCode
    if hasattr(format_code, 'cache_info'):
        return

    @functools.lru_cache(maxsize=4)
    def remembered(text: str, style: tuple, options: tuple):
        return format_code(text, style_config=dict(style), **dict(options))

    def formatted(text: str, style_config: dict, **options):
        return remembered(text, tuple(style_config.items()), tuple(options.items()))

    formatted.cache_info = remembered.cache_info
    config.FormatCode = formatted
