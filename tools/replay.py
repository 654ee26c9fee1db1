"""Repeat the training step whose loss was NaN or infinite: python tools/replay.py CONFIG nonfinite_iter_N_rank0.pth."""

import argparse

from mmengine.device import get_device
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope

from mixdet.cli.arguments import add_unsafe_load
from mixdet.cli.main import run_tool, user_input
from mixdet.engine.config import load_config
from mixdet.engine.nonfinite import examine_step, read_step
from mixdet.engine.randomness import set_rng_state
from mixdet.text import print


def main() -> None:
    parser = argparse.ArgumentParser(description='Repeat the training step whose loss was not finite.')
    parser.add_argument('config', help='config of the training')
    parser.add_argument('file', help='nonfinite_iter_N_rankR.pth from its work dir')
    parser.add_argument('--device', help='device, such as cpu or cuda:0 (default: the GPU if there is one)')
    add_unsafe_load(parser)
    args = parser.parse_args()

    cfg = load_config(args.config)
    step = read_step(args.file)
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    with user_input(args.config):
        model = MODELS.build(cfg.model).to(args.device or get_device()).train()
        model.load_state_dict(step['state_dict'])
        for name, value in (*model.named_parameters(), *model.named_buffers()):
            if name in step['state_dict']:  # with its memory format, which affects rounding
                value.data = step['state_dict'][name].to(value.device)
        optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    optim_wrapper.initialize_count_status(model, 0, 1)
    set_rng_state(step['rng'])
    print(f'iteration {step["iteration"]}: {examine_step(model, optim_wrapper, step["batch"])}')


if __name__ == '__main__':
    run_tool(main)
