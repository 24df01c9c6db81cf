"""The pipelines: what goes in, what comes out, in which order, and where the class is found."""

import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
import transformer2017
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformer2017.modeling.documents import split_lines, split_sentences, strip_white_space
from transformers import (
    AutoModelForSeq2SeqLM,
    BartConfig,
    BartForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    MarianConfig,
    MarianMTModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
    pipeline,
)

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", ".", "!", "?"]
TEXTS = ["one", "two three four five six seven", "eight nine", "ten nine eight seven six", "three three three"]
LENGTHS = {"max_new_tokens": 8, "min_new_tokens": 1}
WORDS_ALONE = {**LENGTHS, "suppress_tokens": [0, 1, 3]}  # so that what a random model writes is seen


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """Words between spaces, in the layout of the project's own tokenizers."""
    vocabulary = {token: index for index, token in enumerate(["<pad>", "<s>", "</s>", "<unk>", *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.decoder = decoders.WordPiece(prefix="##")
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


@pytest.fixture(scope="module")
def own_model(tokenizer, widened) -> transformer2017.Transformer2017ForConditionalGeneration:
    torch.manual_seed(3)
    config = transformer2017.Transformer2017Config.from_preset(
        "tiny", vocab_size=len(tokenizer), d_model=32, d_ff=64, encoder_layers=2, decoder_layers=2
    )
    return widened(transformer2017.Transformer2017ForConditionalGeneration(config).eval(), 2)


@pytest.fixture(scope="module")
def folder(own_model, tokenizer, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "one-two"
    own_model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def others(tokenizer):
    """Tiny random models of other families, with the same vocabulary."""
    torch.manual_seed(5)
    size = {"vocab_size": len(tokenizer), "d_model": 16, "pad_token_id": 0, "eos_token_id": 2}
    layers = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    ffn = {"encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "max_position_embeddings": 32}
    start = {"decoder_start_token_id": 0, "forced_eos_token_id": 2, "bos_token_id": 1}
    yield MarianMTModel(MarianConfig(**size, **layers, **ffn, **start)).eval()
    yield BartForConditionalGeneration(BartConfig(**size, **layers, **ffn, **start)).eval()
    t5 = T5Config(**size, d_kv=8, d_ff=24, num_layers=1, num_heads=2, decoder_start_token_id=0)
    yield T5ForConditionalGeneration(t5).eval()


def translate_one_by_one(model, tokenizer, texts: list[str], **settings) -> list[str]:
    """The oracle: each text alone through plain `generate()`."""
    results = []
    for text in texts:
        ids = tokenizer(text, return_tensors="pt").input_ids
        output = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **LENGTHS, **settings)
        results.append(tokenizer.decode(output[0], skip_special_tokens=True))
    return results


def test_transformers_still_removes_the_tasks():
    """When transformers changes its table of removed tasks, package/pipelines.py must change with it."""
    code = (
        "from transformers import pipelines\n"
        "assert {'translation', 'text2text-generation'} <= set(pipelines.REMOVED_TASKS)\n"
        "import transformer2017\n"
        "assert not {'translation', 'text2text-generation'} & set(pipelines.REMOVED_TASKS)\n"
        "assert 'summarization' in pipelines.REMOVED_TASKS\n"
        "for task in ('translation', 'translation_en_to_de', 'text2text-generation'):\n"
        "    print(pipelines.check_task(task)[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["translation", "translation", "text2text-generation"]


@pytest.mark.parametrize("task", ["translation", "translation_one_to_two"])
@pytest.mark.parametrize("given", ["string", "path", "object"])
def test_our_model_by_folder_and_as_an_object(task, given, folder, own_model, tokenizer):
    """With the package imported no code of the folder needs to be trusted."""
    how = {
        "string": {"model": str(folder)},
        "path": {"model": folder},
        "object": {"model": own_model, "tokenizer": tokenizer},
    }
    translate = pipeline(task, **how[given])
    expected = translate_one_by_one(own_model, tokenizer, TEXTS)
    assert [record["translation_text"] for record in translate(TEXTS, **LENGTHS)] == expected
    assert type(translate).__module__ == "transformer2017.modeling.pipeline_transformer2017"


def test_a_folder_names_its_task(folder):
    """`pipeline(model=...)` alone; and the config still names the task when it is saved again."""
    translate = pipeline(model=str(folder))
    assert translate.task == "translation"
    assert translate("one", **WORDS_ALONE)[0]["translation_text"]


def test_a_folder_alone(folder, own_model, tokenizer, tmp_path):
    """Without the package, with trust_remote_code: the class comes from the folder, by task and without one."""
    code = (
        "import sys, json\n"
        "sys.modules['transformer2017'] = None\n"  # importing the package now raises
        "from transformers import pipeline\n"
        f"texts, lengths = json.loads({json.dumps(json.dumps([TEXTS, LENGTHS]))})\n"
        f"for how in ({{'task': 'translation'}}, {{}}):\n"
        f"    translate = pipeline(model={str(folder)!r}, trust_remote_code=True, **how)\n"
        "    assert type(translate).__module__.startswith('transformers_modules'), type(translate).__module__\n"
        "    print(json.dumps([record['translation_text'] for record in translate(texts, **lengths)]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = translate_one_by_one(own_model, tokenizer, TEXTS)
    assert [json.loads(line) for line in done.stdout.splitlines()] == [expected, expected]


def test_other_families(tokenizer, tmp_path):
    """MarianMT, BART and T5, as objects and by folder, agree with plain `generate()`."""
    for model in others(tokenizer):
        model.save_pretrained(tmp_path / model.config.model_type)
        tokenizer.save_pretrained(tmp_path / model.config.model_type)
        expected = translate_one_by_one(model, tokenizer, TEXTS, num_beams=2)
        for given in ({"model": model, "tokenizer": tokenizer}, {"model": str(tmp_path / model.config.model_type)}):
            for task, key in (("translation", "translation_text"), ("text2text-generation", "generated_text")):
                records = pipeline(task, **given)(TEXTS, num_beams=2, batch_size=2, **LENGTHS)
                assert [record[key] for record in records] == expected, (type(model).__name__, task)


def test_by_name(folder, own_model, tokenizer, tmp_path, monkeypatch):
    """A name on the Hub, found in the cache that a download leaves."""
    from huggingface_hub import constants

    repository = tmp_path / "models--me--one-two"
    shutil.copytree(folder, repository / "snapshots" / ("0" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    translate = pipeline("translation", model="me/one-two")
    expected = translate_one_by_one(own_model, tokenizer, TEXTS)
    assert [record["translation_text"] for record in translate(TEXTS, **LENGTHS)] == expected


def test_an_output_is_not_cut_at_twenty_tokens(own_model, tokenizer):
    """256 new tokens where nobody says otherwise, as it was; the model's own bound where it has one (§6.1)."""
    never_ending = {"suppress_tokens": [0, 1, 2, 3]}
    for model in (next(others(tokenizer)), own_model):
        model.config.max_position_embeddings = model.config.max_position_embeddings and 1024
        translate = pipeline("translation", model=model, tokenizer=tokenizer)
        assert translate._prepare_generate_kwargs({})["max_new_tokens"] == 256
    assert len(translate("one two", **never_ending)[0]["translation_text"].split()) == 256
    own_model.generation_config.max_tokens_beyond_input = 5
    try:
        translate = pipeline("translation", model=own_model, tokenizer=tokenizer)
        assert len(translate("one two", **never_ending)[0]["translation_text"].split()) == 3 + 5
    finally:
        del own_model.generation_config.max_tokens_beyond_input


def test_forms_of_input_and_order(own_model, tokenizer):
    """A string, a list, a tuple, a column and a generator; batches are sorted inside, results are not."""
    translate = pipeline("translation", model=own_model, tokenizer=tokenizer, batch_size=2, **LENGTHS)
    expected = [{"translation_text": text} for text in translate_one_by_one(own_model, tokenizer, TEXTS)]
    assert translate(TEXTS[1]) == [expected[1]]
    assert translate(TEXTS) == expected
    assert translate(tuple(TEXTS)) == expected
    assert translate(Dataset.from_dict({"source": TEXTS})["source"]) == expected
    assert list(translate(text for text in TEXTS)) == [[record] for record in expected]
    assert translate([]) == []


def test_a_generator_is_read_no_further_than_a_window(own_model, tokenizer):
    """A stream without an end can be translated."""
    translate = pipeline("translation", model=own_model, tokenizer=tokenizer, batch_size=1, **LENGTHS)
    read = 0

    def endless():
        nonlocal read
        while True:
            read += 1
            yield "one two"

    assert next(translate(endless()))[0]["translation_text"]
    assert read <= 64


def test_a_torch_dataset_is_read_by_its_length(own_model, tokenizer):
    """It need not say by an IndexError where it ends."""

    class Texts(torch.utils.data.Dataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return TEXTS[index % 2]

    run = pipeline("translation", model=own_model, tokenizer=tokenizer, **LENGTHS)
    assert list(run(Texts())) == [[one] for one in run(TEXTS[:2])]


def test_batches_hold_like_lengths(own_model, tokenizer, monkeypatch):
    """Sixteen texts of two lengths, alternating, make two batches without any padding."""
    translate = pipeline("translation", model=own_model, tokenizer=tokenizer, batch_size=8, **LENGTHS)
    masks = []
    generate = own_model.generate
    monkeypatch.setattr(own_model, "generate", lambda **kw: masks.append(kw["attention_mask"]) or generate(**kw))
    translate(["one", "two three four five"] * 8)
    assert [tuple(mask.shape) for mask in masks] == [(8, 5), (8, 2)]
    assert all(mask.all() for mask in masks)


def test_blank_texts_stay_blank(own_model, tokenizer):
    """An empty line has an empty translation, not what a model makes of nothing."""
    translate = pipeline("translation", model=own_model, tokenizer=tokenizer, **WORDS_ALONE)
    records = translate(["", "one", "  \n"])
    assert [bool(record["translation_text"]) for record in records] == [False, True, False]
    assert list(map(len, translate(["", "one"], num_beams=2, num_return_sequences=2))) == [2, 2]


def test_n_best_with_scores(own_model, tokenizer):
    """`return_all` gives the whole beam, best first, with the scores of `generate()`."""
    translate = pipeline("translation", model=own_model, tokenizer=tokenizer)
    best = translate(TEXTS, num_beams=3, return_all=True, **LENGTHS)
    assert [len(records) for records in best] == [3] * len(TEXTS)
    for text, records in zip(TEXTS, best, strict=True):
        ids = tokenizer(text, return_tensors="pt").input_ids
        expected = own_model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            num_beams=3,
            num_return_sequences=3,
            return_dict_in_generate=True,
            output_scores=True,
            **LENGTHS,
        )
        assert [record["score"] for record in records] == pytest.approx(expected.sequences_scores.tolist(), abs=1e-5)
        texts = tokenizer.batch_decode(expected.sequences, skip_special_tokens=True)
        assert [record["translation_text"] for record in records] == texts


def test_score_of_greedy_search(own_model, tokenizer):
    """The mean log probability of a token, counted here from the logits of the finished sequence."""
    translate = pipeline("translation", model=own_model, tokenizer=tokenizer, **LENGTHS)
    for text in TEXTS:
        [record] = translate(text, return_all=True)
        ids = tokenizer(text, return_tensors="pt").input_ids
        output = own_model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **LENGTHS)
        logits = own_model(input_ids=ids, decoder_input_ids=output[:, :-1]).logits
        logits[:, 0, 2] = -torch.inf  # min_new_tokens=1 forbids the end at the first step
        chosen = logits.log_softmax(-1).gather(-1, output[:, 1:, None])
        assert record["score"] == pytest.approx(chosen.mean().item(), abs=1e-4)


def test_truncation_is_never_silent(tokenizer, own_model):
    """Too long is an error that says what to do; cut is a warning that says how much is gone."""
    translate = pipeline("translation", model=own_model, tokenizer=tokenizer, **LENGTHS)
    before = tokenizer.model_max_length
    tokenizer.model_max_length = 5
    try:
        with pytest.raises(ValueError, match=r"7 tokens is longer than the 5 .*split='sentences'.*truncation=True"):
            translate(["one", TEXTS[1]])
        with pytest.warns(UserWarning, match="1 texts were cut to 5 tokens; 2 tokens were lost"):
            records = translate(["one", TEXTS[1]], truncation=True)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert translate("two three four five", truncation=True)[0] == records[1]
    finally:
        tokenizer.model_max_length = before


def test_a_model_of_learned_positions_bounds_the_input(tokenizer):
    """The bound is in the config where the tokenizer has none."""
    config = transformer2017.Transformer2017Config.from_preset(
        "tiny", vocab_size=len(tokenizer), d_model=32, learned_positions=6
    )
    model = transformer2017.Transformer2017ForConditionalGeneration(config).eval()
    with pytest.raises(ValueError, match="7 tokens is longer than the 6"):
        pipeline("translation", model=model, tokenizer=tokenizer)("one two three four five six")


def test_wrong_inputs_are_named(own_model, tokenizer):
    """A sentence for each mistake."""
    translate = pipeline("translation", model=own_model, tokenizer=tokenizer)
    with pytest.raises(ValueError, match="takes strings, not int"):
        translate([1])
    for wrong, name in ((None, "NoneType"), (5, "int"), ({"text": "one"}, "dict")):
        with pytest.raises(ValueError, match=f"takes strings, not {name}"):
            translate(wrong)
    with pytest.raises(ValueError, match="split must be one of sentences, lines"):
        translate("one", split="words")
    with pytest.raises(ValueError, match="drop split"):
        translate("one", split="lines", return_all=True)
    decoder_only = GPT2LMHeadModel(GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=1))
    with pytest.raises(ValueError, match="GPT2LMHeadModel is not one"):
        pipeline("translation", model=decoder_only, tokenizer=tokenizer)


def test_t5_reads_its_prefix_from_the_task(tokenizer):
    """translation_xx_to_yy gives T5 the prefix and the settings that its config holds for it."""
    *_, t5 = others(tokenizer)
    t5.config.task_specific_params = {"translation_one_to_two": {"prefix": "seven ", "max_new_tokens": 3}}
    prefixed = pipeline("translation_one_to_two", model=t5, tokenizer=tokenizer)(TEXTS)
    by_hand = pipeline("translation", model=t5, tokenizer=tokenizer)(
        ["seven " + text for text in TEXTS], max_new_tokens=3
    )
    assert prefixed == by_hand


class OfTwoLanguages(PreTrainedTokenizerFast):
    """As mBART's, NLLB's and M2M100's, which refuse to translate between languages that are not named."""

    def _build_translation_inputs(self, texts, return_tensors, src_lang, tgt_lang, **kwargs):
        if src_lang is None or tgt_lang is None:
            raise ValueError("Translation requires a `src_lang` and a `tgt_lang` for this model")
        return {**self([f"{src_lang} {text}" for text in texts]), "forced_bos_token_id": 5}


def test_only_a_translation_needs_its_languages_named(own_model, tokenizer):
    """As in transformers 4: text2text-generation gives such a tokenizer the text alone."""
    words = OfTwoLanguages(
        tokenizer_object=tokenizer.backend_tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    free = pipeline("text2text-generation", model=own_model, tokenizer=words)
    texts = [record["generated_text"] for record in free(TEXTS, **LENGTHS)]
    assert texts == translate_one_by_one(own_model, tokenizer, TEXTS)
    named = free("two", src_lang="one", tgt_lang="two", **WORDS_ALONE)[0]["generated_text"]
    assert named.split()[0] == tokenizer.convert_ids_to_tokens(5)
    with pytest.raises(ValueError, match="requires a `src_lang`"):
        pipeline("translation", model=own_model, tokenizer=words)("two")


def test_a_lone_surrogate_is_no_traceback(own_model, tokenizer):
    """Text from the web and from file names has them; no tokenizer takes them."""
    translate = pipeline("translation", model=own_model, tokenizer=tokenizer)
    assert translate("one \ud83d two", **LENGTHS) == translate("one ? two", **LENGTHS)


def test_a_saved_pipeline_carries_its_code(tokenizer, tmp_path):
    """Any model that the pipeline saves can be used as a pipeline where the package is not."""
    marian = next(others(tokenizer))
    pipeline("translation", model=marian, tokenizer=tokenizer).save_pretrained(tmp_path)
    assert (tmp_path / "pipeline_transformer2017.py").is_file()
    assert (tmp_path / "documents.py").is_file()
    assert json.loads((tmp_path / "config.json").read_text())["custom_pipelines"]["translation"]["impl"] == (
        "pipeline_transformer2017.TranslationPipeline"
    )
    assert isinstance(AutoModelForSeq2SeqLM.from_pretrained(tmp_path), MarianMTModel)


def test_a_document_keeps_its_white_space(own_model, tokenizer):
    """Split, translated and joined: the pieces' translations stand between the text's own spaces and breaks."""
    translate = pipeline("translation", model=own_model, tokenizer=tokenizer, **LENGTHS)
    document = "\n  One two. Three four!  Five\n\n\tsix seven.\r\n"
    pieces = ["One two.", "Three four!", "Five", "six seven."]
    one, two, three, four = translate_one_by_one(own_model, tokenizer, pieces)
    [record] = translate(document, split="sentences")
    assert record == {"translation_text": f"\n  {one} {two}  {three}\n\n\t{four}\r\n"}
    whole = translate_one_by_one(own_model, tokenizer, ["One two. Three four!  Five", "six seven."])
    assert translate([document, "one"], split="lines")[0] == {
        "translation_text": f"\n  {whole[0]}\n\n\t{whole[1]}\r\n"
    }
    assert translate("\n \n", split="lines") == [{"translation_text": "\n \n"}]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Two dogs run. A man sits.", ["Two dogs run. ", "A man sits."]),
        ('He said "Stop!" She left.', ['He said "Stop!" ', "She left."]),
        ("Mr. Smith met Dr. Jones. They spoke.", ["Mr. Smith met Dr. Jones. ", "They spoke."]),
        ("J. R. Tolkien wrote. We read.", ["J. R. Tolkien wrote. ", "We read."]),
        ("Am 3. Oktober war frei. Alle feierten.", ["Am 3. Oktober war frei. ", "Alle feierten."]),
        ("Version 3.5 is out. Really?  Yes.", ["Version 3.5 is out. ", "Really?  ", "Yes."]),
        ("これは本です。あれは犬です。", ["これは本です。", "あれは犬です。"]),
        ("What? no capital follows.", ["What? no capital follows."]),
        ("Wait... What?", ["Wait... ", "What?"]),
    ],
)
def test_sentences(text, sentences):
    assert split_sentences(text) == sentences


def test_nothing_is_lost_in_splitting():
    """Joined, the pieces are the text, whatever it holds."""
    text = "A. b c! D\r\n\n  e? \u2028 F. \x0b g\n"
    for split in (split_sentences, split_lines):
        assert "".join(split(text)) == text
        assert "".join("".join(strip_white_space(piece)) for piece in split(text)) == text
