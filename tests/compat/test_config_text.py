from mmengine.config import Config

from mixdet.compat import config_text


def test_a_config_is_formatted_once(monkeypatch):
    texts = []

    def format_code(text, style_config, verify=False):
        texts.append(text)
        return f'formatted {text}', True

    module = config_text.formatters_module()
    monkeypatch.setattr(module, 'FormatCode', format_code)
    config_text.install()
    config_text.install()  # not a cache of a cache
    style = dict(based_on_style='pep8')
    for _ in range(2):
        assert module.FormatCode('a=1', style_config=style, verify=True) == ('formatted a=1', True)
    assert texts == ['a=1']
    module.FormatCode('a=1', style_config=dict(based_on_style='google'), verify=True)
    module.FormatCode('a=2', style_config=style)
    assert texts == ['a=1', 'a=1', 'a=2']


def test_the_text_of_a_config_is_mmengines():
    cfg = Config(dict(a=dict(b=[1, 2], c='text')))
    assert cfg.pretty_text == cfg.pretty_text == "a = dict(\n    b=[\n        1,\n        2,\n    ], c='text')\n"
    cfg.a.b = [3]
    assert cfg.pretty_text == "a = dict(\n    b=[\n        3,\n    ], c='text')\n"
