"""Describe a `save_pretrained` folder for MLflow, so that MLflow loads it as it is."""

import shutil
from pathlib import Path

import yaml

_TOKENIZER_FILES = "*token*", "chat_template*", "vocab*", "merges*", "*.model"
_MLMODEL = {
    "flavors": {
        "python_function": {"loader_module": "mlflow.transformers", "model_binary": "."},
        "transformers": {
            "task": "text-generation",
            "instance_type": "TextGenerationPipeline",
            "pipeline_model_type": "AutoModelForCausalLM",
            "model_binary": ".",
            "source_model_name": "realigned",
            "components": ["tokenizer"],
            "tokenizer_type": "AutoTokenizer",
        },
    }
}


def write_mlmodel(path: Path) -> None:
    """Write MLflow's index file into a `save_pretrained` folder, and a tokenizer where it expects one.

    With these, `mlflow.transformers.load_model` and `mlflow.pyfunc.load_model` load the folder as it is.
    """
    tokenizer = path / "components" / "tokenizer"
    tokenizer.mkdir(parents=True, exist_ok=True)
    for pattern in _TOKENIZER_FILES:
        for file in filter(Path.is_file, path.glob(pattern)):
            shutil.copy(file, tokenizer)
    (path / "MLmodel").write_text(yaml.safe_dump(_MLMODEL), encoding="utf-8")
