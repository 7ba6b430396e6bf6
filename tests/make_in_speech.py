"""
Makes tiny random models with the libraries of the environment `speech`: `python make_in_speech.py KIND FOLDER`.

It runs there and not in the tests' own environment, so it imports nothing of theirs.
"""

import json
import sys
from pathlib import Path
from typing import Any

_CONFIG = """\
version: 4.0.0
pipeline:
  name: pyannote.audio.pipelines.SpeakerDiarization
  params:
    segmentation: $model/segmentation
    segmentation_batch_size: 8
    embedding: $model/embedding
    embedding_batch_size: 8
    embedding_exclude_overlap: true
    plda: $model/plda
    clustering: AgglomerativeClustering
params:
  segmentation:
    min_duration_off: 0.0
  clustering:
    method: centroid
    min_cluster_size: 2
    threshold: 0.7
"""


def align(folder: Path) -> None:
    """wav2vec 2.0 with a head for English letters."""
    import torch
    from transformers import (
        Wav2Vec2Config,
        Wav2Vec2CTCTokenizer,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2ForCTC,
        Wav2Vec2Processor,
    )

    torch.manual_seed(0)
    symbols = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ETAONIHSRDLUMWCFGYPBVK'XJQZ"]
    (folder / "vocab.json").write_text(json.dumps({symbol: number for number, symbol in enumerate(symbols)}))
    tokenizer = Wav2Vec2CTCTokenizer(folder / "vocab.json", word_delimiter_token="|", do_lower_case=False)
    extractor = Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=False)
    Wav2Vec2Processor(feature_extractor=extractor, tokenizer=tokenizer).save_pretrained(folder)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = Wav2Vec2Config(
        vocab_size=len(symbols),
        conv_dim=(32,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        pad_token_id=0,
        **sizes,
    )
    Wav2Vec2ForCTC(config).save_pretrained(folder)


def pyannote(folder: Path) -> None:
    """Segmentation, embedding and PLDA of a diarization pipeline, in the folders that pyannote 4 looks into."""
    import numpy
    import torch
    from pyannote.audio.core.task import Problem, Resolution, Specifications
    from pyannote.audio.models.embedding import WeSpeakerResNet34
    from pyannote.audio.models.segmentation import PyanNet

    torch.manual_seed(0)
    for name in ("segmentation", "embedding", "plda"):
        (folder / name).mkdir()
    settings: dict[str, Any] = {
        "sample_rate": 16000,
        "num_channels": 1,
        "sincnet": {"stride": 10},
        "lstm": {"hidden_size": 16, "num_layers": 1, "bidirectional": True, "monolithic": True, "dropout": 0.0},
        "linear": {"hidden_size": 16, "num_layers": 1},
    }
    who = Specifications(
        problem=Problem.MONO_LABEL_CLASSIFICATION,
        resolution=Resolution.FRAME,
        duration=5.0,
        min_duration=None,
        warm_up=(0.0, 0.0),
        classes=["speaker#1", "speaker#2", "speaker#3"],
        powerset_max_classes=2,
        permutation_invariant=True,
    )
    _save(PyanNet(**settings), settings, who, folder / "segmentation")
    settings = {
        "sample_rate": 16000,
        "num_channels": 1,
        "num_mel_bins": 80,
        "frame_length": 25,
        "frame_shift": 10,
        "dither": 0.0,
        "window_type": "hamming",
        "use_energy": False,
    }
    voice = Specifications(
        problem=Problem.REPRESENTATION,
        resolution=Resolution.CHUNK,
        duration=5.0,
        min_duration=None,
        classes=["a", "b"],
    )
    _save(WeSpeakerResNet34(**settings), settings, voice, folder / "embedding")
    random = numpy.random.default_rng(0)
    lda = random.normal(size=(256, 128)) / 16
    numpy.savez(folder / "plda" / "xvec_transform.npz", mean1=numpy.zeros(256), mean2=numpy.zeros(128), lda=lda)
    turn = numpy.eye(128) + 0.01 * random.normal(size=(128, 128))
    numpy.savez(folder / "plda" / "plda.npz", mu=numpy.zeros(128), tr=turn, psi=numpy.linspace(5, 0.1, 128))
    (folder / "config.yaml").write_text(_CONFIG)


def _save(model: Any, settings: dict[str, Any], specifications: Any, folder: Path) -> None:
    import pyannote.audio
    import torch

    model.specifications = specifications
    model.build()
    kind = type(model)
    module = kind.__module__ if "segmentation" in kind.__module__ else "pyannote.audio.models.embedding"
    content = {
        "state_dict": model.state_dict(),
        "hyper_parameters": settings,
        "pytorch-lightning_version": "2.6.6",
        "pyannote.audio": {
            "versions": {"torch": str(torch.__version__), "pyannote.audio": pyannote.audio.__version__},
            "architecture": {"module": module, "class": kind.__name__},
            "specifications": specifications,
        },
    }
    torch.save(content, folder / "pytorch_model.bin")


if __name__ == "__main__":
    {"align": align, "pyannote": pyannote}[sys.argv[1]](Path(sys.argv[2]))
