"""Write docs/results.md and the READMEs' columns from the result files: python tools/results_page.py [--add DIR]."""

import argparse
from pathlib import Path

from mixdet.cli.main import run_tool
from mixdet.engine.atomic import check_ours, make_folder, write_new_text, write_text, writing
from mixdet.errors import UserError
from mixdet.reproduction.results_page import MARK, readme_with_results, results_page, split_results
from mixdet.reproduction.run_results import read_choices, read_run_results
from mixdet.text import print

ROOT = Path(__file__).resolve().parent.parent
COMMAND = 'python tools/study.py configs/_base_/studies/table1.py --data-root data'


def main() -> None:
    parser = argparse.ArgumentParser(description='Write the page of results and the READMEs from the result files.')
    parser.add_argument('--add', type=Path, metavar='DIR', help='results of tools/study.py to take over first')
    parser.add_argument('--docs', type=Path, default=ROOT / 'docs', help='folder of results.md and results/')
    parser.add_argument('--configs', type=Path, default=ROOT / 'configs', help='folder of the families with READMEs')
    args = parser.parse_args()
    page, folder = args.docs / 'results.md', args.docs / 'results'
    check_ours(page, MARK)
    if args.add:
        _add(args.add, folder)

    results = split_results(read_run_results(folder), read_choices(folder))
    if not results.runs:  # a page and READMEs without them would lose what they show
        raise UserError(f'{folder} has no results of tools/study.py; give --add, or --docs')
    make_folder(args.docs)
    with writing(page):
        write_text(page, results_page(results, COMMAND))
    written = [page]
    from mixdet.reproduction.results_plot import plot_results  # matplotlib is slow to import

    written += plot_results(results, args.docs)
    for readme in sorted(args.configs.glob('*/README.md')):
        text = readme.read_text(encoding='utf-8')
        changed = readme_with_results(text, results)
        if changed != text:
            with writing(readme):
                write_text(readme, changed)
            written.append(readme)
    print(f'{len(results.runs)} results; written: {", ".join(map(str, written))}')


def _add(source: Path, folder: Path) -> None:
    """Copy the result files below ``source`` into ``folder``. Raises UserError if one is there with other content."""
    found = read_run_results(source)  # all can be read
    if not found:
        raise UserError(f'--add {source}: there are no results of tools/study.py, such as neu-det/ROW_seed0.json')
    read_choices(source)
    new = []
    for path in sorted(source.glob('*/*.json')):
        target = folder / path.parent.name / path.name
        text = path.read_text(encoding='utf-8')
        if not target.is_file():
            new.append((target, text))
        elif target.read_text(encoding='utf-8') != text:
            raise UserError(f'{target} has another result; remove it if {path} is to take its place')
    for target, text in new:
        make_folder(target.parent)
        write_new_text(target, text)
    print(f'{len(new)} files added to {folder}')


if __name__ == '__main__':
    run_tool(main)
