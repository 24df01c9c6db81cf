"""Opens a model folder, or a model of the Hub, with its tokenizer."""

import transformer2017  # noqa: F401 - importing it registers the model with the Auto classes
from transformer2017.configuration import UsageError
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase


def load(path: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Loads a model and its tokenizer for inference. No code of the model folder is run.

    Args:
        path: A folder, or the name of a model on the Hub.

    Raises:
        UsageError: If no model or no tokenizer can be read there, or the model is of another kind.
    """
    try:
        model = AutoModelForSeq2SeqLM.from_pretrained(path, trust_remote_code=False).eval()
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{path} holds no model and tokenizer that can be loaded: {reason}") from error
    if model.config.model_type != "transformer2017":
        raise UsageError(
            f"{path} is a model of type {model.config.model_type!r}, and only the original Transformer "
            "(transformer2017) can be looked into: bring it in with 'transformer2017 import' if it is a MarianMT model"
        )
    return model, tokenizer
