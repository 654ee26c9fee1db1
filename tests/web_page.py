"""Reading a page of the report as a browser would, and checking that it is whole and needs no other file."""

import re
from html.parser import HTMLParser

VOID = {'meta', 'img', 'br', 'link', 'input', 'wbr'}


class Page(HTMLParser):
    """Text by section, attributes by tag, and whether every tag is closed in its turn."""

    def __init__(self, text):
        super().__init__()
        self.open, self.text, self.attributes, self.ids = [], {}, [], []
        self.section = ''
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        self.attributes += [(tag, key, value) for key, value in attrs]
        self.ids += [value for key, value in attrs if key == 'id']
        if tag == 'section':
            self.section = dict(attrs)['id']

    def handle_startendtag(self, tag, attrs):
        self.attributes += [(tag, key, value) for key, value in attrs]
        self.ids += [value for key, value in attrs if key == 'id']

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, (tag, self.getpos())

    def handle_data(self, data):
        self.text[self.section] = self.text.get(self.section, '') + f' {" ".join(data.split())}'


def check_alone(page, text):
    """Nothing is fetched: whatever the page refers to is in it."""
    for tag, key, value in page.attributes:
        if key in ('src', 'href', 'xlink:href', 'data', 'poster', 'srcset', 'action'):
            assert value.startswith(('#', 'data:')), (tag, key, value[:80])
            if value.startswith('#'):
                assert value[1:] in page.ids
        elif not key.startswith('xmlns'):
            assert '//' not in (value or '') or key in ('alt', 'title'), (tag, key, value[:80])
    assert '@import' not in text and not re.search(r'url\((?!#)', text)
    assert 'link' not in {tag for tag, _, _ in page.attributes}
    scripts = re.findall(r'<script>(.*?)</script>', text, re.DOTALL)
    assert len(scripts) == 1 and 'http' not in scripts[0] and 'fetch' not in scripts[0]
