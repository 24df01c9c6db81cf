"""`translate`: a line out for each line in, in order, whatever the lines are."""

import gzip
import io
import json
import shutil
import subprocess
import sys
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import transformer2017
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformer2017 import cli
from transformer2017.modeling.translation import Translator, review_lines, windows
from transformer2017.modeling.translation_decoder import take
from transformer2017.training.arguments import TokenizerArguments
from transformer2017.training.tokenization import train_tokenizer
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

WORDS = [f"w{i}" for i in range(93)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved model with random weights and a tokenizer of whole words."""
    vocabulary = {word: i for i, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    path = tmp_path_factory.mktemp("model")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(path)
    torch.manual_seed(7)
    config = transformer2017.Transformer2017Config(
        vocab_size=97, d_model=32, d_ff=64, num_heads=4, encoder_layers=2, decoder_layers=2
    )
    model = transformer2017.Transformer2017ForConditionalGeneration(config)
    model.generation_config.max_new_tokens = 12
    model.save_pretrained(path)
    return path


def translate(capsys, monkeypatch, words, stdin=""):
    monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
    code = cli.main(["translate", *map(str, words)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


LINES = ["w1 w2 w3", "", "w4", "w5 w6 w7 w8 w9 w10 w11", "   ", "w12 w13"]


def test_a_line_out_for_each_line_in_and_empty_for_empty(folder, capsys, monkeypatch):
    code, out, _ = translate(capsys, monkeypatch, [folder], "\n".join(LINES) + "\n")
    outputs = out.split("\n")
    assert code == 0
    assert outputs.pop() == ""
    assert len(outputs) == len(LINES)
    assert [bool(line) for line in outputs] == [bool(line.strip()) for line in LINES]


@pytest.mark.parametrize("beams", [1, 3])
def test_order_and_batching_do_not_change_a_translation(folder, capsys, monkeypatch, beams):
    alone = [translate(capsys, monkeypatch, [folder, "--num_beams", beams], line + "\n")[1] for line in LINES]
    together = translate(
        capsys, monkeypatch, [folder, "--num_beams", beams, "--window", 4, "--batch_tokens", 10], "\n".join(LINES)
    )[1]
    assert together == "".join(alone)


def test_files_and_standard_input_are_read_in_the_order_given(folder, tmp_path, capsys, monkeypatch):
    (tmp_path / "a.txt").write_text("w1 w2\nw3\n", encoding="utf-8")
    mixed = translate(capsys, monkeypatch, [folder, tmp_path / "a.txt", "-"], "w4 w5\n")[1]
    assert mixed == translate(capsys, monkeypatch, [folder], "w1 w2\nw3\nw4 w5\n")[1]


def test_a_compressed_file_is_read_as_its_text(folder, tmp_path, capsys, monkeypatch):
    """`train` and `evaluate` read train.en.gz; a damaged one must not end in a traceback or in half a file."""
    packed = gzip.compress(b"w1 w2\nw3\n")
    (tmp_path / "a.gz").write_bytes(packed)
    (tmp_path / "cut.gz").write_bytes(packed[:-9])
    (tmp_path / "plain.gz").write_bytes(b"w1 w2\n")
    code, out, _ = translate(capsys, monkeypatch, [folder, tmp_path / "a.gz"])
    assert (code, out) == (0, translate(capsys, monkeypatch, [folder], "w1 w2\nw3\n")[1])
    for damaged in ("cut.gz", "plain.gz"):
        code, _, err = translate(capsys, monkeypatch, [folder, tmp_path / damaged])
        assert code == 2
        assert f"{damaged}' cannot be read: " in err


@pytest.mark.parametrize("missing", ["folder", "config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_part_of_a_model_is_named_in_one_sentence(folder, tmp_path, capsys, monkeypatch, missing):
    target = tmp_path / "model"
    if missing != "folder":
        shutil.copytree(folder, target)
        (target / missing).unlink()
    code, out, err = translate(capsys, monkeypatch, [target], "w1\n")
    assert code == 2
    assert out == ""
    assert str(target) in err
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) == 1


def test_a_missing_input_file_is_named(folder, capsys, monkeypatch):
    code, _, err = translate(capsys, monkeypatch, [folder, "no-such-file.txt"])
    assert code == 2
    assert "no-such-file.txt" in err


def test_the_command_itself_translates(folder):
    done = subprocess.run(
        [sys.executable, "-m", "transformer2017", "translate", folder],
        input="w1 w2\n\nw3\n",
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3


def columns(capsys, monkeypatch, words, stdin="w1 w2 w3\n\nw5 w6\n"):
    code, out, err = translate(capsys, monkeypatch, words, stdin)
    assert code == 0, err
    return [line.split("\t") for line in out.splitlines()]


def test_confidence_is_the_mean_log_probability_of_the_translation(folder, capsys, monkeypatch):
    """Oracle: the loss that the model itself gives for that pair."""
    text, confidence = columns(capsys, monkeypatch, [folder, "--num_beams", 2, "--confidence"])[0]
    model = transformer2017.Transformer2017ForConditionalGeneration.from_pretrained(folder).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    source, target = (tokenizer(line, return_tensors="pt")["input_ids"] for line in ("w1 w2 w3", text))
    assert float(confidence) == pytest.approx(-model(input_ids=source, labels=target).loss.item(), abs=1e-3)


def test_word_confidence_and_alignment_have_an_entry_for_each_word(folder, capsys, monkeypatch):
    rows = columns(capsys, monkeypatch, [folder, "--word_confidence", "--alignments"])
    for (text, words, pharaoh), source_length in zip(rows, (3, 0, 2), strict=True):
        assert len(words.split()) == len(text.split())
        pairs = [tuple(map(int, pair.split("-"))) for pair in pharaoh.split()]
        assert sorted(target for _, target in pairs) == list(range(len(text.split())))
        assert all(source < source_length for source, _ in pairs)


def test_symbols_are_aligned_though_no_space_parts_them(folder):
    """Atoms of a molecule, letters of a word: a line without spaces would be one word."""
    arguments = TokenizerArguments(tokenizer_type="symbols", symbol_pattern=r"Cl|\S")
    tokenizer = train_tokenizer(iter(["CCl OCC"]), arguments, 300)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    (found,) = review_lines(model, tokenizer, [("CClO", "OC C")], alignments=True)
    assert [target for _, target in found.review.alignment] == [0, 1, 2] == list(range(len(found.review.words)))
    assert {source for source, _ in found.review.alignment} <= {0, 1, 2}


def test_words_are_aligned_by_the_last_layer_but_one(folder, widened):
    """Oracle: the attention that the model itself gives, averaged over heads. Each word is a token here."""
    config = transformer2017.Transformer2017Config(
        vocab_size=97, d_model=32, d_ff=64, num_heads=4, encoder_layers=1, decoder_layers=3
    )
    model = widened(transformer2017.Transformer2017ForConditionalGeneration(config).eval(), 3)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    pair = "w1 w2 w3 w4 w5", "w9 w8 w7 w6 w5 w4 w3"
    (review,) = Translator(model, tokenizer, alignments=True).reviewer.review([pair[0]], [pair[1]])
    source, labels = (tokenizer(text, return_tensors="pt")["input_ids"] for text in pair)
    model.set_attn_implementation("eager")
    layers = model(input_ids=source, labels=labels, output_attentions=True).cross_attentions
    looks = [layer[0].mean(0)[:7, :5].argmax(-1).tolist() for layer in layers]  # at words alone, not at the end token
    assert looks[1] not in (looks[0], looks[2])  # or they are no oracle
    assert review.alignment == tuple((at, word) for word, at in enumerate(looks[1]))


def test_given_translations_are_judged_and_not_changed(folder, tmp_path, capsys, monkeypatch):
    given = ["w7 w8", "w9", "w1 w1 w1"]
    (tmp_path / "given.txt").write_text("\n".join(given) + "\n", encoding="utf-8")
    rows = columns(capsys, monkeypatch, [folder, "--score", tmp_path / "given.txt"])
    assert [text for text, _ in rows] == given
    assert all(float(score) < 0 for _, score in rows)
    translated = columns(capsys, monkeypatch, [folder, "--confidence", "--num_beams", 8])
    assert float(translated[0][1]) > float(rows[0][1])  # the search finds better than words at random


def test_a_translator_takes_the_weights_that_the_model_has_by_then(folder):
    model = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    translator = Translator(model, tokenizer)
    before = [one.text for one in translator.translate(LINES)]
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight.flip(0))
    after = [one.text for one in translator.translate(LINES)]
    assert after == [one.text for one in Translator(model, tokenizer).translate(LINES)] != before


def test_an_output_that_is_cut_at_the_last_position_has_no_review(folder):
    """It has no room for the end that a review reads too: its line comes out all the same."""
    torch.manual_seed(3)
    config = transformer2017.Transformer2017Config(
        vocab_size=97, d_model=32, d_ff=64, num_heads=4, encoder_layers=1, decoder_layers=1, learned_positions=8
    )
    model = transformer2017.Transformer2017ForConditionalGeneration(config).eval()
    model.generation_config.eos_token_id = None
    with torch.no_grad():
        model.model.shared.weight[:4] *= 0  # no word of the output is a special one
        model.model.shared.weight[4:] *= 9
    translator = Translator(model, AutoTokenizer.from_pretrained(folder), confidence=True)
    found = list(translator.translate(["w1 w2", "", "w3"]))
    assert [(bool(one.text), one.review) for one in found] == [(True, None), (False, None), (True, None)]


def test_threads_that_translate_side_by_side_leave_no_trace(folder):
    """torch's number of threads is the process's, and the kind of attention is the model's."""
    model = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model.set_attn_implementation("sdpa")
    before = torch.get_num_threads()
    torch.set_num_threads(3)

    def work(count):
        translator = Translator(model, tokenizer, alignments=True, workers=2, batch_tokens=16)
        return [one.review.alignment is not None for one in translator.translate(["w1 w2 w3"] * count)]

    try:
        with ThreadPoolExecutor(3) as pool:
            assert all(map(all, pool.map(work, (40, 20, 30))))
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == 3
    finally:
        torch.set_num_threads(before)
    assert model.config._attn_implementation == "sdpa"


def test_too_few_given_translations_are_named(folder, tmp_path, capsys, monkeypatch):
    (tmp_path / "given.txt").write_text("w7\n", encoding="utf-8")
    code, _, err = translate(capsys, monkeypatch, [folder, "--score", tmp_path / "given.txt"], "w1\nw2\n")
    assert code == 2
    assert "given.txt' has 1 lines, and the text has more" in err


@pytest.mark.parametrize("flag", ["--score", "--prefix"])
@pytest.mark.parametrize("given", ["w7\n", "w7\nw8\nw9\n"], ids=["too few", "too many"])
def test_a_file_that_goes_with_the_text_has_as_many_lines(folder, tmp_path, capsys, monkeypatch, flag, given):
    (tmp_path / "given.txt").write_text(given, encoding="utf-8")
    code, _, err = translate(capsys, monkeypatch, [folder, flag, tmp_path / "given.txt"], "w1\nw2\n")
    assert code == 2
    assert "given.txt" in err


def test_a_translation_ends_where_learned_positions_do(folder):
    """Where the paper's bound, the source's length and 50 tokens, is beyond them; forced tokens count too."""
    config = transformer2017.Transformer2017Config(
        vocab_size=97, d_model=32, d_ff=64, num_heads=4, encoder_layers=1, decoder_layers=1, learned_positions=16
    )
    model = transformer2017.Transformer2017ForConditionalGeneration(config).eval()
    model.generation_config.eos_token_id = None
    translator = Translator(model, AutoTokenizer.from_pretrained(folder))
    assert translator.decoded_by == "fast"
    for prefix in ([], ["w5 w6 w7"]):
        (outputs,) = translator.decoder.decode([[5, 6, 2]], [[9, 10, 11]] if prefix else None)
        assert len(outputs[0].tokens) == 16


def test_max_length_counts_what_a_translation_begins_with(folder):
    """As `generate()` counts it."""
    model = transformer2017.Transformer2017ForConditionalGeneration.from_pretrained(folder).eval()
    model.generation_config.update(max_new_tokens=None, eos_token_id=None)
    translator = Translator(model, AutoTokenizer.from_pretrained(folder), max_length=8)
    assert translator.decoded_by == "fast"
    (outputs,) = translator.decoder.decode([[5, 6, 2]], [[9, 10, 11]])
    begun = {"input_ids": torch.tensor([[5, 6, 2]]), "decoder_input_ids": torch.tensor([[1, 9, 10, 11]])}
    assert [1, *outputs[0].tokens] == model.generate(**begun, max_length=8, fast=False)[0].tolist()
    with pytest.raises(ValueError, match="max_length=8 leaves no room behind a beginning of 7 tokens"):
        translator.decoder.decode([[5, 6, 2]], [[9] * 7])


def test_a_misspelt_argument_of_generate_is_refused(folder):
    model = transformer2017.Transformer2017ForConditionalGeneration.from_pretrained(folder)
    with pytest.raises(ValueError, match="nmu_beams"):
        Translator(model, AutoTokenizer.from_pretrained(folder), nmu_beams=4)


@pytest.mark.parametrize(
    "given",
    [{"num_beams": 3, "length_penalty": 0.0, "max_new_tokens": 7}, {"max_tokens_beyond_input": 1}, {"max_length": 6}],
    ids=str,
)
def test_a_configuration_of_generation_may_be_given_whole(folder, given):
    """What it leaves open is the model's, as in `generate()`: here its beams."""
    model = transformer2017.Transformer2017ForConditionalGeneration.from_pretrained(folder).eval()
    model.generation_config.update(max_new_tokens=None, eos_token_id=None, num_beams=2)
    config = GenerationConfig(**given, pad_token_id=0, decoder_start_token_id=1)
    translator = Translator(model, AutoTokenizer.from_pretrained(folder), generation_config=config)
    assert translator.decoded_by == "fast"
    (outputs,) = translator.decoder.decode([[5, 6, 2]])
    expected = model.generate(torch.tensor([[5, 6, 2]]), generation_config=config, fast=False)
    assert [1, *outputs[0].tokens] == expected[0].tolist()


def test_what_only_generate_takes_is_left_to_it(folder):
    model = transformer2017.Transformer2017ForConditionalGeneration.from_pretrained(folder).eval()
    tokenizer, seen = AutoTokenizer.from_pretrained(folder), []
    translator = Translator(model, tokenizer, logits_processor=[lambda ids, scores: seen.append(len(ids)) or scores])
    assert [one.text for one in translator.translate(LINES)] == [
        one.text for one in Translator(model, tokenizer).translate(LINES)
    ]
    assert seen


def test_a_batch_that_another_worker_may_take_is_looked_at_in_one_go():
    """Looked at first and taken afterwards, it could be gone between the two."""
    batches = deque([[0, 1, 2], [3]])
    assert take(batches, most=2) is None
    assert take(batches, most=3) == [0, 1, 2]
    assert take(batches, most=1) == [3]
    assert take(batches, most=1) is None


def test_a_line_is_cut_by_its_tokens_however_many_a_character_has(folder):
    """Where a tokenizer normalises, one character of Arabic, ﷺ, is 18 letters."""
    translator = Translator(AutoModelForSeq2SeqLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder))

    def tokens(text, **_):
        ids = [[0] * (18 * len(line) + 1) for line in ([text] if isinstance(text, str) else text)]
        return {"input_ids": ids[0] if isinstance(text, str) else ids}

    translator.tokenizer, translator.longest = tokens, 40
    assert [[len(part) for part in parts] for parts in translator._sources(["ﷺ" * 4, "", "ﷺ"])] == [[37, 37], [], [19]]


def test_another_familys_translation_has_a_confidence(folder):
    """T5 names its layers otherwise; without alignments nobody asks for them."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(2)
    config = T5Config(vocab_size=97, d_model=16, d_ff=16, num_layers=1, num_heads=2, d_kv=8, decoder_start_token_id=0)
    model = T5ForConditionalGeneration(config).eval()
    (found,) = Translator(model, tokenizer, confidence=True, max_new_tokens=5).translate(["w1 w2"])
    assert found.review.confidence < 0


def test_a_model_without_a_bound_gets_the_papers(folder):
    """Not transformers' default of 20 tokens."""
    model = transformer2017.Transformer2017ForConditionalGeneration.from_pretrained(folder)
    model.generation_config.update(max_new_tokens=None, eos_token_id=None)
    decoder = Translator(model, AutoTokenizer.from_pretrained(folder)).decoder
    assert [len(best[0].tokens) for best in decoder.decode([[5, 2], [5] * 29 + [2]])] == [52, 80]


@pytest.mark.parametrize("beams", [1, 3])
def test_translations_begin_as_told_and_go_on_as_generate_goes_on(folder, tmp_path, capsys, monkeypatch, beams):
    (tmp_path / "prefix.txt").write_text("w9 w10\n\nw11\n", encoding="utf-8")
    words = [folder, "--prefix", tmp_path / "prefix.txt", "--num_beams", beams]
    found = [row[0] for row in columns(capsys, monkeypatch, words)]
    assert found[0].startswith("w9 w10")
    assert found[2].startswith("w11")
    assert found == [row[0] for row in columns(capsys, monkeypatch, [*words, "--decoding", "transformers"])]


def test_n_best_lists_are_in_moses_form_and_sorted(folder, capsys, monkeypatch):
    code, out, _ = translate(capsys, monkeypatch, [folder, "--num_beams", 4, "--n_best", 3], "w1 w2\nw5\n")
    rows = [line.split(" ||| ") for line in out.splitlines()]
    assert code == 0
    assert [row[0] for row in rows] == ["0"] * 3 + ["1"] * 3
    for start in (0, 3):
        scores = [float(row[2]) for row in rows[start : start + 3]]
        assert scores == sorted(scores, reverse=True)


def test_json_says_all_that_was_asked_for(folder, capsys, monkeypatch):
    words = [folder, "--num_beams", 2, "--n_best", 2, "--json"]
    _, out, _ = translate(capsys, monkeypatch, words, "w1 w2\n\n")
    first, empty = (json.loads(line) for line in out.splitlines())
    assert first["text"] == first["hypotheses"][0]["text"]
    assert len(first["hypotheses"]) == 2
    assert empty == {"text": "", "hypotheses": []}


def test_json_has_hypotheses_and_the_review_of_the_best(folder, capsys, monkeypatch):
    words = [folder, "--num_beams", 2, "--n_best", 2, "--json", "--confidence", "--alignments"]
    code, out, err = translate(capsys, monkeypatch, words, "w1 w2\n")
    assert code == 0, err
    record = json.loads(out)
    assert len(record["hypotheses"]) == 2
    assert record["confidence"] < 0
    assert "alignment" in record


@pytest.mark.parametrize("flag", ["--score", "--prefix"])
def test_a_given_line_beyond_learned_positions_is_refused_in_a_sentence(folder, tmp_path, capsys, monkeypatch, flag):
    """It is met when lines are read, long after the flags."""
    model, given = tmp_path / "model", tmp_path / "given.txt"
    shutil.copytree(folder, model)
    config = transformer2017.Transformer2017Config(
        vocab_size=97, d_model=32, d_ff=64, num_heads=4, encoder_layers=1, decoder_layers=1, learned_positions=8
    )
    transformer2017.Transformer2017ForConditionalGeneration(config).save_pretrained(model)
    given.write_text(" ".join(WORDS[:20]) + "\n")
    code, _, err = translate(capsys, monkeypatch, [model, flag, given], "w1 w2\n")
    assert code == 2
    assert "8" in err
    assert len(err.strip().split("\n")) == 1


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("beams", [1, 4])
def test_refilled_slots_and_workers_give_what_generate_gives_line_by_line(folder, workers, beams):
    model = transformer2017.Transformer2017ForConditionalGeneration.from_pretrained(folder).eval()
    model.generation_config.eos_token_id = [2, *range(20, 60)]  # so that outputs end at many lengths
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    lines = [" ".join(f"w{(7 * i + 3 * j) % 93}" for j in range(1 + i % 9)) for i in range(40)]
    translator = Translator(model, tokenizer, num_beams=beams, rows=3 * beams, window=25, workers=workers)
    found = [translation.text for translation in translator.translate(lines)]
    assert translator.decoded_by == "fast"
    for line, text in zip(lines, found, strict=True):
        ids = tokenizer(line, return_tensors="pt")["input_ids"]
        expected = model.generate(input_ids=ids, num_beams=beams, fast=False)
        assert text == tokenizer.decode(expected[0], skip_special_tokens=True)


@pytest.mark.parametrize("beams", [1, 3])
def test_a_slot_that_stays_free_does_not_run_past_learned_positions(folder, widened, beams):
    """Outputs end at their source's length and 8 tokens: one at 15 of the 16 positions, three others at 14, and the
    three that take their places run for 14 more steps beside the free slot of the first."""
    config = transformer2017.Transformer2017Config(
        vocab_size=97, d_model=32, d_ff=64, num_heads=4, encoder_layers=1, decoder_layers=1, learned_positions=16
    )
    model = widened(transformer2017.Transformer2017ForConditionalGeneration(config).eval(), 3)
    model.generation_config.eos_token_id = None
    request = {"num_beams": beams, "max_tokens_beyond_input": 8}
    translator = Translator(model, AutoTokenizer.from_pretrained(folder), rows=4 * beams, workers=1, **request)
    sources = torch.randint(4, 97, (7, 7))
    found = translator.decoder.decode([sources[0].tolist(), *sources[1:, :6].tolist()])
    assert translator.decoded_by == "fast"
    expected = [row for part in (sources[:1], sources[1:, :6]) for row in model.generate(part, fast=False, **request)]
    assert [best.tokens for (best,) in found] == [row[1:].tolist() for row in expected]
    assert [len(best.tokens) for (best,) in found] == [15] + 6 * [14]


def test_a_translator_hears_what_hangs_on_the_encoder(folder):
    """It reads weights and not modules where it can, and an adapter is more than its weights."""

    class Doubled(torch.nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    model = transformer2017.Transformer2017ForConditionalGeneration.from_pretrained(folder).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    feed_forward = model.model.encoder.layers[0].feed_forward
    plain = feed_forward.w_2
    feed_forward.w_2 = Doubled(plain.in_features, plain.out_features)
    feed_forward.w_2.load_state_dict(plain.state_dict())
    ids = tokenizer("w1 w2 w3", return_tensors="pt")["input_ids"]
    expected = model.generate(input_ids=ids, num_beams=2, output_scores=True, return_dict_in_generate=True, fast=False)
    (found,) = Translator(model, tokenizer, num_beams=2).translate(["w1 w2 w3"])
    assert found.score == pytest.approx(expected.sequences_scores.item(), abs=1e-4)


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_low_precision_stays_near_float32(folder, capsys, monkeypatch, precision):
    """The log probability of what it finds, in the float32 model's own opinion, is nearly as high."""
    lines = "\n".join(" ".join(f"w{(5 * i + j) % 93}" for j in range(1 + i % 6)) for i in range(12)) + "\n"
    scores = []
    for chosen in ("float32", precision):
        words = [folder, "--num_beams", 4, "--precision", chosen, "--decoding", "fast", "--json"]
        _, out, _ = translate(capsys, monkeypatch, words, lines)
        scores.append([json.loads(line)["score"] for line in out.splitlines()])
    differences = [abs(a - b) for a, b in zip(*scores, strict=True)]
    assert sum(differences) / len(differences) < 0.1


def test_a_line_longer_than_the_model_knows_is_translated_and_reported(folder, tmp_path, capsys, monkeypatch):
    target = tmp_path / "model"
    shutil.copytree(folder, target)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(target)
    tokenizer.model_max_length = 5
    tokenizer.save_pretrained(target)
    code, out, err = translate(capsys, monkeypatch, [target], "w1\nw1 w2 w3 w4 w5 w6 w7\n")
    assert code == 0
    assert all(out.splitlines())
    assert "line 2 is longer" in err
    assert "line 1 " not in err


@pytest.mark.parametrize("beams", [1, 2])
def test_the_score_of_a_line_in_parts_is_the_sum_over_its_parts(folder, beams):
    """Each being translated as a line of its own is; greedy decoding has no scores."""
    model = transformer2017.Transformer2017ForConditionalGeneration.from_pretrained(folder).eval()
    translator = Translator(model, AutoTokenizer.from_pretrained(folder), longest=5, num_beams=beams)
    pieces = ["w1 w2 w3", "w4 w5 w6", "w7 w8 w9", "w10 w11 w12"]
    line, *parts = translator.translate([" ".join(pieces), *pieces])
    assert [line.parts, *(part.parts for part in parts)] == [4, 1, 1, 1, 1]
    assert line.text == " ".join(part.text for part in parts)
    assert line.source_tokens == 4 * 4
    expected = None if beams == 1 else pytest.approx(sum(part.score for part in parts), abs=1e-4)
    assert line.score == expected


def test_windows_close_early_on_long_lines_so_that_memory_is_bounded():
    lines = ["x" * 400_000] * 5 + ["y"] * 5
    assert [len(window) for window in windows(lines, 4)] == [3, 4, 3]


def test_reports_say_which_decoding_ran(folder, capsys, monkeypatch):
    assert "decoded by fast" in translate(capsys, monkeypatch, [folder, "--report"], "w1\n")[2]
    forced = [folder, "--report", "--decoding", "transformers"]
    assert "decoded by transformers: fast=False" in translate(capsys, monkeypatch, forced, "w1\n")[2]


@pytest.mark.parametrize(
    "words",
    [
        ["--num_beams", 0],
        ["--length_penalty", "nan"],
        ["--n_best", 3, "--num_beams", 2],
        ["--n_best", 2, "--num_beams", 2, "--confidence"],
        ["--score", "x", "--num_beams", 2, "--n_best", 2, "--json"],
        ["--ranking", "paper", "--decoding", "transformers"],
    ],
    ids=str,
)
def test_flags_that_make_no_sense_are_refused(folder, capsys, monkeypatch, words):
    code, out, err = translate(capsys, monkeypatch, [folder, *words], "w1\n")
    assert code == 2
    assert out == ""
    assert str(words[0]).lstrip("-") in err


def test_evaluate_refuses_a_beam_of_none(folder, tmp_path, capsys):
    (tmp_path / "lines.txt").write_text("w1\n")
    files = ["--source", str(tmp_path / "lines.txt"), "--target", str(tmp_path / "lines.txt")]
    assert cli.main(["evaluate", str(folder), *files, "--num_beams", "0"]) == 2
    assert "--num_beams must be at least 1, not 0" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["translate", "evaluate", "train"])
def test_weights_that_lack_one_are_refused(folder, tmp_path, capsys, command):
    """A folder without a manifest tells no damage of its own, and transformers goes on with random weights."""
    model, lines = tmp_path / "model", tmp_path / "lines.txt"
    shutil.copytree(folder, model)
    (model / "manifest.json").unlink(missing_ok=True)
    weights = load_file(model / "model.safetensors")
    lost = "model.decoder.layers.1.feed_forward.w_1.weight"
    del weights[lost]
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    lines.write_text("w1 w2\n")
    run = ["--output_dir", tmp_path / "run"]
    words = {
        "translate": [model, lines],
        "evaluate": [model, "--source", lines, "--target", lines],
        "train": ["--model", model, "--train_source", lines, "--train_target", lines, *run],
    }[command]
    assert cli.main([command, *map(str, words)]) == 2
    assert lost in capsys.readouterr().err
    assert not (tmp_path / "run" / "model.safetensors").exists()
