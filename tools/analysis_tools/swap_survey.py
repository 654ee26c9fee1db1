"""Try a backbone in every config of the installed MMDetection: python tools/analysis_tools/swap_survey.py OUT.jsonl."""

import argparse
import os
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from mixdet.cli.main import run_tool
from mixdet.engine.atomic import check_new, write_new_text
from mixdet.errors import UserError
from mixdet.swap.offline import write_language_model
from mixdet.swap.survey import survey, survey_tables
from mixdet.text import print


def main() -> None:
    parser = argparse.ArgumentParser(description='Swap the backbone of many configs, and build and run each.')
    parser.add_argument('results', help='file of one JSON line per config; an interrupted run continues from it')
    parser.add_argument('--backbone', default='mixnet-s', metavar='NAME', help='as for tools/swap_backbone.py')
    parser.add_argument('--configs', metavar='FOLDER', help='folder of configs (default: those of MMDetection)')
    parser.add_argument('--only', default='*', metavar='PATTERN', help='files in the folder, such as retinanet/*.py')
    parser.add_argument('--seconds', type=int, default=120, help='time limit for one config')
    parser.add_argument(
        '--language-model',
        metavar='FOLDER',
        help='a BERT for GLIP and Grounding DINO (default: a small random one, if transformers is installed)',
    )
    parser.add_argument('--markdown', metavar='FILE', help='file to write the tables to')
    args = parser.parse_args()
    folder = Path(args.configs or Path(find_spec('mmdet').submodule_search_locations[0], '.mim', 'configs')).resolve()
    paths = sorted(path for path in folder.rglob('*.py') if path.match(args.only))
    paths = [path for path in paths if not {'_base_', 'common'} & set(path.parts)]
    if not paths:
        raise UserError(f'{folder} contains no config {args.only}')
    results, out = Path(args.results).absolute(), args.markdown and Path(args.markdown).absolute()
    if out:
        check_new(out, '--markdown')
    with tempfile.TemporaryDirectory() as scratch:
        language_model = args.language_model
        if not language_model:
            try:
                language_model = write_language_model(Path(scratch))
            except UserError as error:
                print(f'GLIP and Grounding DINO will not run: {error}', file=sys.stderr)
        os.chdir(folder.parent)  # configs of students name their teacher's relative to it
        attempts = []
        for attempt in survey(folder, paths, args.backbone, results, args.seconds, language_model):
            attempts.append(attempt)
            print(f'{len(attempts)}/{len(paths)}  {attempt.status}  {attempt.config}  {attempt.reason}', flush=True)
    table = survey_tables(attempts)
    if out:
        write_new_text(out, f'# {args.backbone} in {len(attempts)} configs\n\n{table}')
    print(table.partition('\n\n')[0])


if __name__ == '__main__':
    run_tool(main)
