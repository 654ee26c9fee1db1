"""Runs tools in forks of one process that has imported what they need: started by ``helpers.run_tool``.

Reads one request per line from stdin (JSON: ``script``, ``args``, ``cwd``, ``env``, ``stdout``, ``stderr``) and answers
with two lines: the process id and, when the tool has ended, its exit status. Nothing here may start a thread: a fork
has none of its parent's threads, and OpenMP would wait for them for ever.
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import signal
import sys
import warnings

# what tools import, and when they train (torch._dynamo, of every optimizer) or export
MODULES = (
    'matplotlib.pyplot',
    'mixdet.backbones',
    'mixdet.cli.runner',
    'mixdet.deploy',
    'mixdet.report.page',
    'mixdet.ssdlite',
    'mmdet.datasets',
    'mmdet.engine.hooks',
    'mmdet.evaluation',
    'mmdet.models',
    'mmdet.visualization',
    'rich.console',
    'torch._dynamo',
    'torch.onnx',
    'torch.utils.cpp_extension',
)
OPTIONAL_MODULES = ('faster_coco_eval', 'onnxscript')  # not onnxruntime, which starts a thread


def serve() -> dict:
    """Answer requests until stdin ends; returns in the forks alone, each with its request."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for pytest
    for line in sys.stdin:
        request = json.loads(line)
        process = os.fork()
        if process == 0:
            return request
        print(process, flush=True)
        _, status = os.waitpid(process, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    sys.exit()


def take_over(request: dict) -> None:
    """Make this process one that was started for ``request``."""
    import torch

    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(request['env'])
    os.chdir(request['cwd'])
    files = [os.open(os.devnull, os.O_RDONLY)]
    files += [os.open(request[name], os.O_WRONLY | os.O_APPEND) for name in ('stdout', 'stderr')]
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    torch.set_num_threads(int(os.environ.get('OMP_NUM_THREADS', 1)))
    sys.argv = [request['script'], *request['args']]
    sys.path[0] = os.path.dirname(request['script'])


if __name__ == '__main__':
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        for module in MODULES:
            importlib.import_module(module)
        for module in OPTIONAL_MODULES:
            with contextlib.suppress(ImportError):
                importlib.import_module(module)
    assert len(os.listdir('/proc/self/task')) == 1, 'an import has started a thread'
    gc.freeze()  # else every fork copies the pages that its garbage collector marks
    request = serve()
    take_over(request)
    runpy.run_path(request['script'], run_name='__main__')  # and Python ends as it does after any script
