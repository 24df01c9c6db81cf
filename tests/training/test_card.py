"""The card's metadata, read back by huggingface_hub: what the Hub shows of a run's scores."""

import pytest
from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.utils import validate_repo_id
from transformer2017 import Transformer2017Config
from transformer2017.training.arguments import DataArguments
from transformer2017.training.card import decoding, evaluation_results, hub_dataset, readdress
from transformer2017.training.saving import paper_generation_config
from transformers import GenerationConfig

SCORES = {"bleu": 38.123, "chrf": 60.0, "bleu_signature": "nrefs:1|tok:13a", "chrf_signature": "nc:6", "weights": "w"}


@pytest.mark.parametrize(
    ("fields", "id_of_data", "name", "split"),
    [
        ({}, "validation-set", "validation set", "validation"),
        ({"dataset_name": "Multi30k, en → de"}, "multi30k-en-de", "Multi30k, en → de", "validation"),
        ({"dataset_name": "日本語"}, "validation-set", "日本語", "validation"),
        ({"dataset": "me/pairs", "validation_split": "dev"}, "me/pairs", "me/pairs", "dev"),
        ({"dataset": "me/pairs", "dataset_name": "My pairs"}, "me/pairs", "My pairs", "validation"),
        ({"dataset": "me/pairs", "dataset_config": "en-de", "validation_split": "dev"}, "me/pairs", "me/pairs", "dev"),
    ],
)
def test_results_are_valid_metadata(fields, id_of_data, name, split):
    data = DataArguments(**fields)
    results = evaluation_results(SCORES, data)
    metadata = ModelCardData(model_name="en-de", language=["en", "de"], eval_results=results)
    read = ModelCard(f"---\n{metadata.to_yaml()}\n---\n# en-de").data.eval_results
    assert [(one.metric_type, one.metric_value, one.metric_config) for one in read] == [
        ("bleu", 38.12, "nrefs:1|tok:13a"),
        ("chrf", 60.0, "nc:6"),
    ]
    for one in read:
        validate_repo_id(one.dataset_type)
        assert (one.task_type, one.dataset_type, one.dataset_name, one.dataset_split) == (
            "translation", id_of_data, name, split,
        )  # fmt: skip
        assert one.dataset_config == fields.get("dataset_config")


def test_the_card_says_how_the_model_decodes_also_where_it_came_from_elsewhere():
    beam = (
        "by beam search of size 4 with length penalty 0.6, and the output is at most 50 tokens longer than the input"
    )
    assert decoding(paper_generation_config(Transformer2017Config())) == beam
    assert decoding(GenerationConfig()) == "greedy"
    assert decoding(GenerationConfig(num_beams=6)) == "by beam search of size 6 with length penalty 1"


def test_a_finished_run_is_uploaded_with_the_address_that_it_gets(tmp_path):
    """The commands of its card, and no more: other words may be alike."""
    text = (
        "# run\nA run of ...\n"
        'model = AutoModelForSeq2SeqLM.from_pretrained("run", trust_remote_code=True)\n'
        "transformer2017 translate run < input.txt > output.txt\n"
        "transformer2017 evaluate run --source running.source\n"
        "transformer2017 train --output_dir run\n"
    )
    card = tmp_path / "README.md"
    card.write_text(text, encoding="utf-8")
    readdress(card, "me/en-de")
    readdress(tmp_path / "no card", "me/en-de")
    assert card.read_text(encoding="utf-8").splitlines() == [
        "# run",
        "A run of ...",
        'model = AutoModelForSeq2SeqLM.from_pretrained("me/en-de", trust_remote_code=True)',
        "transformer2017 translate me/en-de < input.txt > output.txt",
        "transformer2017 evaluate me/en-de --source running.source",
        "transformer2017 train --output_dir run",
    ]


def test_only_a_data_set_of_the_hub_is_linked(tmp_path):
    """A folder on one's own disk, or a name for people to read, is none."""
    assert hub_dataset(DataArguments(dataset="me/pairs")) == "me/pairs"
    assert hub_dataset(DataArguments(dataset_name="multi30k")) == "multi30k"
    assert hub_dataset(DataArguments(dataset=str(tmp_path))) is None
    assert hub_dataset(DataArguments(dataset_name="Multi30k, en to de")) is None
    assert hub_dataset(DataArguments(train_source=["train.en"])) is None
