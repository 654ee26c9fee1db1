"""The READMEs quote the paper."""

import re

import pytest
from helpers import ROOT

from mixdet.reproduction.paper import TABLE1


@pytest.mark.parametrize('family', ['mobilenetv1', 'mobilenetv2'])
def test_readmes_quote_the_papers_map(family):
    text = (ROOT / f'configs/ssdlite_{family}/README.md').read_text()
    rows = re.findall(r'^\| \[(\S+)\]\(.+?\) \|[^|]+\|[^|]+\| ([\d.]+) \| not trained \|', text, re.MULTILINE)
    assert {name: float(quoted) for name, quoted in rows} == {
        name: row.map for name, row in TABLE1.items() if name.startswith(family)
    }
