"""What a saved folder says of itself: transformers copies these files into it, so that it loads anywhere."""

import json
import os
from pathlib import Path
from typing import Any

from .pipeline_transformer2017 import CUSTOM_PIPELINES

PACKAGE_VERSION = "0.1.0"  # of the package that this file is from, also where it is a copy in a saved folder


class SavedWithCode:
    """Saves weights, configuration, and the code of this folder, so that the model loads where the package is not."""

    def save_pretrained(self, save_directory: str | os.PathLike, *args: Any, **kwargs: Any) -> None:
        """Names the classes of all models, whichever is saved, and the pipeline, for the Auto classes to find,
        and the version of the package whose code goes into the folder.

        A manifest that `transformer2017 train` left in the folder goes: what it says is no longer so.

        Raises:
            ValueError: If the configuration has become one that could not be loaded, as where weights were untied.
        """
        self.config.check()
        _remove_manifest(Path(save_directory, "manifest.json"))
        self.config.auto_map = {
            "AutoConfig": "configuration_transformer2017.Transformer2017Config",
            "AutoModel": "modeling_transformer2017.Transformer2017Model",
            "AutoModelForSeq2SeqLM": "modeling_transformer2017.Transformer2017ForConditionalGeneration",
        }
        self.config.custom_pipelines = CUSTOM_PIPELINES
        self.config.package_version = PACKAGE_VERSION
        if getattr(self, "generation_config", None) is not None:
            # Of one that it made itself transformers reads its own fields alone, and would lose `ranking` and others.
            self.generation_config._from_model_config = False
        super().save_pretrained(save_directory, *args, **kwargs)


def _remove_manifest(file: Path) -> None:
    """Another program's file of that name stays."""
    try:
        is_ours = {"format", "files"} <= json.loads(file.read_text(encoding="utf-8")).keys()
    except (OSError, ValueError, AttributeError):  # no such file, not JSON, no object
        return
    if is_ours:
        file.unlink()
