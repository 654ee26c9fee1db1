"""The package without what PyTorch 2.1, the oldest supported, lacks."""

import subprocess
import sys

# everything of later versions that mixdet uses somewhere
MISSING = """
import torch, torch.export, torch.onnx
import mmengine.runner  # PyTorch's own modules need what they have while they are imported
for owner, names in {
    torch: ['get_autocast_dtype'],
    torch.amp: ['GradScaler'],
    torch.compiler: ['is_compiling', 'is_exporting'],
    torch.export: ['Dim'],
    torch.library: ['custom_op', 'register_autograd', 'register_fake', 'opcheck'],
    torch.serialization: ['add_safe_globals'],
}.items():
    for name in names:
        if name in vars(owner):
            delattr(owner, name)
torch.__version__ = '2.1.2'
"""
USE = """
import importlib, pkgutil
import mixdet
from mmengine.registry import MODELS

names = [module.name for module in pkgutil.walk_packages(mixdet.__path__, 'mixdet.')]
for name in names:
    if not name.endswith('triton_kernels'):  # need Triton
        importlib.import_module(name)
MODELS.build(dict(type='mixdet.MixNet'))(torch.zeros(1, 3, 64, 64))
print(len(names), 'modules')
"""


def test_every_module_imports_and_a_network_runs(monkeypatch):
    monkeypatch.setenv('MIXDET_NATIVE', '0')
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', MISSING + USE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    count, _ = done.stdout.split()[-2:]
    assert int(count) > 90
