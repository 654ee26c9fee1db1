"""A page for browsers: a folder with HTML, the ONNX file and onnxruntime-web, for any web server of static files."""

import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

from mixdet.deploy.exportable import NMS_ONNX
from mixdet.deploy.formats import onnx
from mixdet.deploy.formats.base import Format, Job, Opened
from mixdet.errors import UserError

PAGE = Path(__file__).parent.parent / 'web_page'
MODEL = 'model.onnx'
RUNTIME = 'ort'  # folder of onnxruntime-web's files, from which the page takes them
PACKAGE, VERSION = 'onnxruntime-web', '1.30.0'
# what the page needs of the package's folder dist, with the SHA-256 of each, wherever it comes from
FILES = {
    'ort.wasm.bundle.min.mjs': '11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90',
    'ort-wasm-simd-threaded.wasm': '3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2',
}
TIMEOUT = 600  # s, for 33 MB


def write(job: Job, path: Path) -> None:
    """Fill the folder: page, onnxruntime-web, ONNX file.

    Raises UserError if onnxruntime-web cannot be had, or the detector is exported without NMS.
    """
    if not job.metadata.nms:
        raise UserError('--format web needs NMS in the file; leave out --no-nms')
    (path / RUNTIME).mkdir()
    for name, content in _runtime().items():
        (path / RUNTIME / name).write_bytes(content)
    for file in PAGE.iterdir():
        shutil.copyfile(file, path / file.name)
    onnx.write(job, path / MODEL)


def open_folder(path: Path, threads: int) -> Opened:
    """The folder's ONNX file in ONNX Runtime; the metadata lie in the folder, where the page reads them."""
    return onnx.open_file(path / MODEL, threads)._replace(metadata=None)


def _runtime() -> dict[str, bytes]:
    """The ``FILES`` of onnxruntime-web: from ``node_modules`` in the current folder, else from npm.

    Raises UserError if they are there in neither, or have been changed.
    """
    installed = Path('node_modules', PACKAGE)
    if installed.is_dir():
        return _checked(str(installed), lambda name: (installed / 'dist' / name).read_bytes())
    command = ['npm', 'pack', f'{PACKAGE}@{VERSION}', '--prefer-offline', '--ignore-scripts']
    advice = f'where it works, run "npm install {PACKAGE}@{VERSION}", and copy the folder node_modules to here'
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                command, cwd=folder, capture_output=True, encoding='utf-8', errors='replace', timeout=TIMEOUT
            )
        except FileNotFoundError as error:
            raise UserError(f'--format web: npm, which has {PACKAGE}, is not installed; {advice}') from error
        except subprocess.TimeoutExpired as error:
            raise UserError(f'--format web: {" ".join(command)} took longer than {TIMEOUT} s; {advice}') from error
        archives = list(Path(folder).glob('*.tgz'))
        if done.returncode or len(archives) != 1:
            reason = next((line for line in done.stderr.splitlines() if 'error' in line), 'no archive')
            raise UserError(f'--format web: {" ".join(command)}: {reason.strip()}; {advice}')
        with tarfile.open(archives[0]) as archive:

            def member(name: str) -> bytes:
                file = archive.extractfile(f'package/dist/{name}')
                assert file is not None  # a regular file
                return file.read()

            return _checked(archives[0].name, member)


def _checked(source: str, read: Callable[[str], bytes]) -> dict[str, bytes]:
    """The files that ``read`` gives. Raises UserError if one is missing or not that of ``VERSION``."""
    contents = {}
    for name, digest in FILES.items():
        try:
            contents[name] = read(name)
        except (OSError, KeyError) as error:
            raise UserError(f'{source}: {name} is missing; "npm install {PACKAGE}@{VERSION}" puts it there') from error
        if hashlib.sha256(contents[name]).hexdigest() != digest:
            raise UserError(f'{source}: {name} is not that of {PACKAGE} {VERSION}; "npm install {PACKAGE}@{VERSION}"')
    return contents


FORMAT = Format(
    name='web',
    suffix='.web',
    write=write,
    open_file=open_folder,
    runtime='onnxruntime',
    extra='onnx',
    packages=('onnx', 'onnxscript'),
    nms=NMS_ONNX,
    is_folder=True,
    minimum_torch='2.6',
)
