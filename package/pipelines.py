"""The one place where transformers itself is changed: it gets back the pipelines that its version 5 removed."""

import re
from typing import Any

from transformers import AutoModelForSeq2SeqLM, pipelines

from .modeling.pipeline_transformer2017 import Text2TextGenerationPipeline, TranslationPipeline

TASKS = {"translation": TranslationPipeline, "text2text-generation": Text2TextGenerationPipeline}
LANGUAGE_PAIR = re.compile(r"translation_\w+_to_\w+")


def restore_removed_tasks() -> None:
    """Registers `translation`, `translation_xx_to_yy` and `text2text-generation` for every encoder-decoder model.

    transformers looks a task up in `REMOVED_TASKS` before its registry, and raises KeyError: the two entries are taken
    out. Its registry knows no `translation_xx_to_yy` either, so the lookup of that form leads to `translation`. A
    transformers that has the tasks again keeps its own.
    """
    for task, pipeline_class in TASKS.items():
        getattr(pipelines, "REMOVED_TASKS", {}).pop(task, None)
        if task not in pipelines.PIPELINE_REGISTRY.supported_tasks:
            pipelines.PIPELINE_REGISTRY.register_pipeline(
                task, pipeline_class=pipeline_class, pt_model=AutoModelForSeq2SeqLM, type="text"
            )
    registry, check_task = pipelines.PIPELINE_REGISTRY, pipelines.PIPELINE_REGISTRY.check_task

    def check_task_or_pair(task: str) -> tuple[str, dict[str, Any], Any]:
        return check_task("translation" if LANGUAGE_PAIR.fullmatch(task) else task)

    registry.check_task = check_task_or_pair
