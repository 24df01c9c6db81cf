"""The model, a file a section of the paper, and what makes it a model of transformers."""

from .modeling_transformer2017 import Transformer2017ForConditionalGeneration, Transformer2017Model

__all__ = ["Transformer2017ForConditionalGeneration", "Transformer2017Model"]
