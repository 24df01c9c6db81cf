"""The pipelines `translation` and `text2text-generation`, for this model and any other encoder-decoder.

transformers removed both in version 5. Results have the form that they had there; what is new is said in
`Text2TextGenerationPipeline`.
"""

import itertools
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from transformers import GenerationConfig, Pipeline

from .documents import split_lines, split_sentences, strip_white_space, without_surrogates

# What a saved model's config says, so that `pipeline(model=folder, trust_remote_code=True)` finds task and code. It
# names an Auto class: transformers does not find a model class that lives in the folder itself.
CUSTOM_PIPELINES = {
    "translation": {"impl": "pipeline_transformer2017.TranslationPipeline", "pt": ["AutoModelForSeq2SeqLM"]}
}
DEFAULT_BATCH_SIZE = 32  # texts
BATCHES_PER_WINDOW = 32  # how many batches are read ahead to be sorted by length
SPLITTERS = {"sentences": split_sentences, "lines": split_lines}

Record = dict[str, Any]  # {"translation_text": ..., "score": ...}: one hypothesis


class Text2TextGenerationPipeline(Pipeline):
    """Text in, text out, by any encoder-decoder model and its tokenizer.

    ```python
    generate = pipeline("text2text-generation", model="google-t5/t5-small")
    generate("summarize: ...")  # [{"generated_text": "..."}]
    ```

    A string gives a list with one record for each hypothesis. A list, a tuple or a column of a dataset gives a list:
    of records, or, with several hypotheses for each text, of lists of records. A generator or a torch dataset gives an
    iterator that reads ahead only as far as it sorts. Texts are batched by length; results are in the texts' order.

    Arguments of the pipeline or of a call, besides those of `generate()`:

    - `batch_size`: Texts in a batch, 32 unless given.
    - `return_all`: Every hypothesis of the beam (or `num_return_sequences` of them), each with its `score`: the log
      probability by which the search ranked it; for greedy search, the mean log probability of a token.
    - `truncation`: False (the default) refuses a text that is longer than the model takes; True cuts it, with a
      warning that says how much was lost.
    - `split`: "sentences" or "lines" cuts a long text, runs the pieces, and joins the results with the text's own
      white space.
    - `src_lang`, `tgt_lang`: For tokenizers of many languages.
    - `clean_up_tokenization_spaces`: As in `tokenizer.decode`.
    """

    return_name = "generated"
    _load_tokenizer = True
    _load_processor = _load_image_processor = _load_video_processor = _load_feature_extractor = False
    _pipeline_calls_generate = True
    # Where neither the model nor the caller says how long an output may be; generate() itself would stop after 20.
    _default_generation_config = GenerationConfig(max_new_tokens=256)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not self.model.config.is_encoder_decoder:
            raise ValueError(
                f"The {self.task} pipeline runs encoder-decoder models, and {type(self.model).__name__} is not one."
            )
        if self.tokenizer is None:
            raise ValueError(f"The {self.task} pipeline needs the model's tokenizer: pass tokenizer=...")
        if getattr(self.model.generation_config, "max_tokens_beyond_input", None) is not None:
            self._generation_defaults.pop("max_new_tokens")  # the model has a bound of its own (§6.1)
        self._task_params = dict((getattr(self.model.config, "task_specific_params", None) or {}).get(self.task, {}))
        self._prefix = self._task_params.pop("prefix", getattr(self.model.config, "prefix", None)) or ""

    def _sanitize_parameters(
        self,
        truncation: bool | None = None,
        src_lang: str | None = None,
        tgt_lang: str | None = None,
        split: str | None = None,
        return_all: bool | None = None,
        clean_up_tokenization_spaces: bool | None = None,
        **generate_kwargs: Any,
    ) -> tuple[Record, Record, Record]:
        if split is not None and split not in SPLITTERS:
            raise ValueError(f"split must be one of {', '.join(SPLITTERS)}, not {split!r}.")
        encoding = {"truncation": truncation, "src_lang": src_lang, "tgt_lang": tgt_lang, "split": split}
        decoding = {"clean_up_tokenization_spaces": clean_up_tokenization_spaces}
        running = dict(generate_kwargs) if return_all is None else {**generate_kwargs, "return_all": return_all}
        return (
            {name: value for name, value in encoding.items() if value is not None},
            running,
            {name: value for name, value in decoding.items() if value is not None},
        )

    def __call__(
        self,
        inputs: str | Iterable[str],
        *args: Any,
        batch_size: int | None = None,
        num_workers: int | None = None,  # transformers' pipelines take it; there is nothing for others to do here
        **kwargs: Any,
    ) -> Any:
        """Runs on a string, a sequence of strings, or any iterable of strings; see the class for what comes back.

        Raises:
            ValueError: If an argument is not one of this pipeline, or the input is none of these.
        """
        if args:
            raise ValueError(f"The {self.task} pipeline takes one argument: give several texts as a list.")
        if kwargs.pop("return_tensors", None):
            raise ValueError(f"The {self.task} pipeline returns text: call the model's generate() for token ids.")
        encoding, running, decoding = self._sanitize_parameters(**kwargs)
        encoding = {**self._preprocess_params, **encoding}
        running = {**self._forward_params, **running}
        decoding = {**self._postprocess_params, **decoding}
        split = encoding.pop("split", None)
        hypotheses = self._hypotheses(**running)
        if split is not None and (running.get("return_all") or hypotheses > 1):
            raise ValueError("A text that is split has one result: drop split, or return_all and num_return_sequences")
        size = batch_size or self._batch_size or DEFAULT_BATCH_SIZE

        def run(texts: Iterable[str]) -> Iterator[list[Record]]:
            for window in _windows(texts, size * BATCHES_PER_WINDOW):
                self._check_texts(window)
                if split is None:
                    yield from self._run_texts(window, size, encoding, running, decoding)
                else:
                    yield from self._run_documents(window, SPLITTERS[split], size, encoding, running, decoding)

        if isinstance(inputs, str):
            return next(run([inputs]))
        if isinstance(inputs, Sequence):
            results = list(run(inputs))
            return [records[0] for records in results] if hypotheses == 1 else results
        return run(self._read(inputs))

    def _read(self, inputs: Any) -> Iterable[str]:
        """The texts of what is neither a string nor a sequence; a torch dataset is read by its length."""
        if hasattr(inputs, "__getitem__") and hasattr(inputs, "__len__") and not hasattr(inputs, "__iter__"):
            return (inputs[index] for index in range(len(inputs)))
        if isinstance(inputs, Mapping) or not (hasattr(inputs, "__iter__") or hasattr(inputs, "__getitem__")):
            raise ValueError(f"The {self.task} pipeline takes strings, not {type(inputs).__name__}: {inputs!r:.80}")
        return inputs

    def _run_documents(self, documents: list[str], split: Any, *settings: Any) -> Iterator[list[Record]]:
        """Cuts each document, runs all pieces together, and joins each document's results (one record each)."""
        pieces = [[strip_white_space(piece) for piece in split(document)] for document in documents]
        cores = [core for document in pieces for _, core, _ in document if core]
        results = iter(self._run_texts(cores, *settings))
        key = f"{self.return_name}_text"
        for document in pieces:
            joined = [before + (next(results)[0][key] if core else "") + after for before, core, after in document]
            yield [{key: "".join(joined)}]

    def _run_texts(
        self, texts: list[str], batch_size: int, encoding: Record, running: Record, decoding: Record
    ) -> list[list[Record]]:
        """The records of each text, in the texts' order, run in batches of like length."""
        blank: Record = {f"{self.return_name}_text": ""} | ({"score": 0.0} if running.get("return_all") else {})
        hypotheses = self._hypotheses(**running)
        results: list[list[Record]] = [[dict(blank) for _ in range(hypotheses)] for _ in texts]
        filled = [index for index, text in enumerate(texts) if text.strip()]
        if not filled:
            return results
        encoded = self.preprocess([texts[index] for index in filled], **encoding)
        shared = {name: value for name, value in encoded.items() if not isinstance(value, list)}
        longest_first = sorted(range(len(filled)), key=lambda row: -len(encoded["input_ids"][row]))
        for start in range(0, len(filled), batch_size):
            rows = longest_first[start : start + batch_size]
            batch = self._pad([encoded["input_ids"][row] for row in rows])
            outputs = self.forward({**batch, **shared}, **running)
            for row, records in zip(rows, self.postprocess(outputs, **decoding), strict=True):
                results[filled[row]] = records
        return results

    def preprocess(
        self,
        texts: list[str],
        truncation: bool = False,
        src_lang: str | None = None,
        tgt_lang: str | None = None,
        **kwargs: Any,
    ) -> Record:
        """Encodes texts: `input_ids`, a list for each, and what else the tokenizer tells `generate()`.

        Raises:
            ValueError: If a text is longer than the model takes, and `truncation` is off.
        """
        texts = [without_surrogates(self._prefix + text) for text in texts]
        languages = self.task.split("_")  # translation_xx_to_yy
        if src_lang is None and tgt_lang is None and len(languages) == 4:
            src_lang, tgt_lang = languages[1], languages[3]
        needs_languages = hasattr(self.tokenizer, "_build_translation_inputs")
        if needs_languages and (src_lang or tgt_lang or self.return_name == "translation"):
            encoded = self.tokenizer._build_translation_inputs(
                texts, return_tensors=None, src_lang=src_lang, tgt_lang=tgt_lang
            )
        else:
            encoded = self.tokenizer(texts, verbose=False)
        ids = [list(row) for row in encoded["input_ids"]]
        extra = {"forced_bos_token_id": encoded["forced_bos_token_id"]} if "forced_bos_token_id" in encoded else {}
        return {"input_ids": self._within_limit(ids, truncation), **extra}

    def _check_texts(self, texts: list[str]) -> None:
        for text in texts:
            if not isinstance(text, str):
                raise ValueError(f"The {self.task} pipeline takes strings, not {type(text).__name__}: {text!r:.80}")

    def _within_limit(self, ids: list[list[int]], truncation: bool) -> list[list[int]]:
        """Refuses or cuts what is longer than the model takes; the last token (the end of the sentence) is kept."""
        limit = self._longest_input()
        over = [len(row) - limit for row in ids if limit is not None and len(row) > limit]
        if not over:
            return ids
        if not truncation:
            raise ValueError(
                f"A text of {limit + max(over)} tokens is longer than the {limit} that this model takes: shorten it, "
                "pass split='sentences' to run it sentence by sentence, or truncation=True to cut it."
            )
        warnings.warn(f"{len(over)} texts were cut to {limit} tokens; {sum(over)} tokens were lost.", stacklevel=2)
        return [row if len(row) <= limit else [*row[: limit - 1], row[-1]] for row in ids]

    def _longest_input(self) -> int | None:
        """In tokens: what the tokenizer says, and what the model has positions for; None if there is no bound."""
        tables = [getattr(self.model.config, name, None) for name in ("max_position_embeddings", "learned_positions")]
        bounds = [self.tokenizer.model_max_length, *tables]
        return min((bound for bound in bounds if bound is not None and bound < 10**9), default=None)

    def _pad(self, ids: list[list[int]]) -> dict[str, torch.Tensor]:
        longest = max(map(len, ids))
        pad = self.tokenizer.pad_token_id
        return {
            "input_ids": torch.tensor([row + [pad] * (longest - len(row)) for row in ids]),
            "attention_mask": torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids]),
        }  # (batch, longest) each

    def _forward(self, model_inputs: Record, return_all: bool = False, **generate_kwargs: Any) -> Record:
        """Generates: `sequences` (batch * hypotheses, length), the batch's size, and scores if they are asked for."""
        batch_size = len(model_inputs["input_ids"])
        settings = self._prepare_generate_kwargs(self._asked(generate_kwargs))
        settings.pop("return_dict_in_generate", None)
        if not return_all:
            return {"sequences": self.model.generate(**model_inputs, **settings), "batch_size": batch_size}
        settings["num_return_sequences"] = self._hypotheses(return_all=True, **generate_kwargs)
        outputs = self.model.generate(**model_inputs, **settings, return_dict_in_generate=True, output_scores=True)
        scores = getattr(outputs, "sequences_scores", None)
        if scores is None:
            scores = self._mean_log_probability(outputs)
        return {"sequences": outputs.sequences, "batch_size": batch_size, "scores": scores}

    def _asked(self, generate_kwargs: Record) -> Record:
        """Arguments of `generate()`: those of the call before those of the pipeline, before those of the task."""
        if "generation_config" in generate_kwargs:  # it stands in place of all others
            return generate_kwargs
        asked = {**self._generate_kwargs, **generate_kwargs}
        return asked if "generation_config" in asked else {**self._task_params, **asked}

    def _hypotheses(self, return_all: bool = False, **generate_kwargs: Any) -> int:
        """How many a text gets: as many as are asked for, or as there are beams if all are."""
        params = self._get_set_generation_params(self._asked(generate_kwargs))
        return params.get("num_return_sequences") or (params.get("num_beams") or 1 if return_all else 1)

    def _mean_log_probability(self, outputs: Any) -> torch.Tensor:
        """Of the tokens of each sequence, its end included; (sequences,)."""
        log_probabilities = self.model.compute_transition_scores(
            outputs.sequences, outputs.scores, normalize_logits=True
        )  # (sequences, generated)
        generated = outputs.sequences[:, -log_probabilities.shape[1] :]
        real = (generated != self.tokenizer.pad_token_id).to(log_probabilities.dtype)
        return (log_probabilities.masked_fill(real == 0, 0.0)).sum(-1) / real.sum(-1).clamp(min=1)

    def postprocess(
        self, model_outputs: Record, clean_up_tokenization_spaces: bool | None = None, **kwargs: Any
    ) -> list[list[Record]]:
        """The records of each text of a batch, the best hypothesis first."""
        texts = self.tokenizer.batch_decode(
            model_outputs["sequences"],
            skip_special_tokens=True,
            clean_up_tokenization_spaces=clean_up_tokenization_spaces,
        )
        records: list[Record] = [{f"{self.return_name}_text": text} for text in texts]
        for record, score in zip(records, model_outputs.get("scores", ()), strict=False):
            record["score"] = float(score)
        each = len(records) // model_outputs["batch_size"]
        return [records[start : start + each] for start in range(0, len(records), each)]


class TranslationPipeline(Text2TextGenerationPipeline):
    """Translates by any encoder-decoder model: `[{"translation_text": "..."}]`.

    ```python
    translate = pipeline("translation", model="my-en-de")
    translate("Two dogs run.")  # [{"translation_text": "Zwei Hunde rennen."}]
    translate(long_text, split="sentences", num_beams=4)
    ```

    The task may name its languages, as in `translation_en_to_de`: models of many tasks or languages read them there.
    See `Text2TextGenerationPipeline` for inputs and arguments.
    """

    return_name = "translation"


def _windows(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    """Reads `size` texts at a time."""
    texts = iter(texts)
    while window := list(itertools.islice(texts, size)):
        yield window
