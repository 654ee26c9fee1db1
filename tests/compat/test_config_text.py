from mmengine.config import Config, config

import mixdet  # noqa: F401


def test_a_config_is_formatted_once():
    cfg = Config(dict(a=dict(b=[1, 2], c='text')))
    first = cfg.pretty_text
    hits = config.FormatCode.cache_info().hits
    assert cfg.pretty_text == first == "a = dict(\n    b=[\n        1,\n        2,\n    ], c='text')\n"
    assert config.FormatCode.cache_info().hits == hits + 1
    cfg.a.b = [3]
    assert '3' in cfg.pretty_text
