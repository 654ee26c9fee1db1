"""The READMEs quote the paper."""

from helpers import ROOT

from mixdet.reproduction.paper import TABLE1


def test_readmes_quote_the_papers_map():
    for readme in (ROOT / 'README.md', *(ROOT / 'configs').glob('ssdlite_mobilenet*/README.md')):
        rows = {line[3:].split(']')[0]: line for line in readme.read_text().splitlines() if line.startswith('| [mob')}
        assert len(rows) in (5, 10)
        for name, row in rows.items():
            assert row.split('|')[4:6] == [f' {TABLE1[name].map} ', ' not trained ']
