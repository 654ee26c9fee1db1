"""Configs of upstream models without what they would download."""

import copy
from pathlib import Path
from typing import Any, Optional

from mixdet.errors import UserError


def without_downloads(model: dict, language_model: Optional[str]) -> dict:
    """A copy of the config ``model`` that can be built offline, on one process, with few packages.

    Checkpoints are left out, a tracker is reduced to its detector, and synchronised batch-norm becomes ordinary.

    Args:
        model: config of the model.
        language_model: folder of a BERT to use instead of the one that GLIP and Grounding DINO download.
    """
    model = copy.deepcopy(model.get('detector', model) if 'tracker' in model else model)
    _adapt(model)
    if 'num_cp' in model.get('encoder', {}):
        model['encoder']['num_cp'] = 0  # checkpointing needs fairscale
    if model.get('teacher_ckpt'):
        model['teacher_ckpt'] = None
    if language_model and 'language_model' in model:
        model['language_model']['name'] = language_model
        if 'lang_model_name' in model.get('bbox_head', {}):
            model['bbox_head']['lang_model_name'] = language_model
    return model


def write_language_model(folder: Path) -> str:
    """Write a random BERT of one layer, with its tokenizer, into ``folder``; returns the path.

    Raises:
        UserError: if no suitable transformers is installed.
    """
    try:
        from transformers import BertConfig, BertModel
        from transformers.modeling_utils import apply_chunking_to_forward  # noqa: F401  (MMDetection's GLIP needs it)
    except ImportError as error:
        needed = "a stand-in for BERT needs a transformers that MMDetection supports: pip install 'transformers<4.54'"
        raise UserError(needed) from error
    folder.mkdir(parents=True, exist_ok=True)
    letters = [chr(code) for code in range(ord('a'), ord('z') + 1)]
    words = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', '.', '?', *letters, *(f'##{letter}' for letter in letters)]
    (folder / 'vocab.txt').write_text('\n'.join(words) + '\n', encoding='utf-8')
    (folder / 'tokenizer_config.json').write_text(
        '{"tokenizer_class": "BertTokenizer", "do_lower_case": true}', encoding='utf-8'
    )
    BertModel(BertConfig(vocab_size=len(words), num_hidden_layers=1)).save_pretrained(folder)
    return str(folder)


def _adapt(node: Any) -> None:
    """Remove checkpoints, and replace batch-norm that needs a process group, everywhere in ``node``."""
    if isinstance(node, dict):
        for key in ('init_cfg', 'pretrained'):
            if isinstance(node.get(key), str) or (isinstance(node.get(key), dict) and 'checkpoint' in node[key]):
                node[key] = None
        if node.get('type') in ('SyncBN', 'MMSyncBN'):
            node['type'] = 'BN'
    for value in node.values() if isinstance(node, dict) else node if isinstance(node, (list, tuple)) else ():
        _adapt(value)
