"""The original Transformer (Vaswani et al., 2017) as a first-class Hugging Face model.

Importing the package registers its model with transformers' Auto classes, and its pipelines for every encoder-decoder.
"""

from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM

from .configuration import PRESETS, Transformer2017Config
from .modeling import Transformer2017ForConditionalGeneration, Transformer2017Model
from .modeling.saved_folder import PACKAGE_VERSION
from .pipelines import restore_removed_tasks

__version__ = PACKAGE_VERSION
__all__ = ["PRESETS", "Transformer2017Config", "Transformer2017ForConditionalGeneration", "Transformer2017Model"]

AutoConfig.register(Transformer2017Config.model_type, Transformer2017Config)
AutoModel.register(Transformer2017Config, Transformer2017Model)
AutoModelForSeq2SeqLM.register(Transformer2017Config, Transformer2017ForConditionalGeneration)
restore_removed_tasks()
