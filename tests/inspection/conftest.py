"""A tiny model with a tokenizer of real subwords, and a browser where one is installed."""

import shutil

import pytest
import torch
import transformer2017
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformer2017.inspection import Explanation, explain
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "two young dogs are running on the grass .",
    "a man rides a red bicycle in the street .",
    "zwei junge Hunde laufen auf dem Gras .",
    "ein Mann fährt ein rotes Fahrrad auf der Straße .",
    "두 마리의 개가 풀밭에서 달린다 .",
    "שני כלבים רצים על הדשא .",
]


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """A shared BPE vocabulary of a few sentences; ids 0 to 3 are padding, start, end and unknown."""
    bpe = Tokenizer(models.BPE(unk_token="<unk>"))
    bpe.pre_tokenizer = pre_tokenizers.Metaspace()
    bpe.decoder = decoders.Metaspace()
    special = ["<pad>", "<s>", "</s>", "<unk>"]
    bpe.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=180, special_tokens=special, show_progress=False))
    bpe.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=bpe, model_input_names=["input_ids", "attention_mask"], **names)


@pytest.fixture(scope="session")
def small_model(tokenizer) -> transformer2017.Transformer2017ForConditionalGeneration:
    """Sizes that all differ, and outputs of at most 9 tokens."""
    torch.manual_seed(7)
    config = transformer2017.Transformer2017Config(
        vocab_size=len(tokenizer), d_model=24, d_ff=40, num_heads=3, d_k=6, d_v=10, encoder_layers=3, decoder_layers=2
    )
    model = transformer2017.Transformer2017ForConditionalGeneration(config).eval()
    model.generation_config.max_new_tokens = 9
    model.generation_config.num_beams = 3
    model.generation_config.length_penalty = 0.6
    return model


@pytest.fixture(scope="session")
def explanation(small_model, tokenizer) -> Explanation:
    return explain(small_model, tokenizer, "two young dogs are running .", num_beams=3)


@pytest.fixture(scope="session")
def model_folder(small_model, tokenizer, tmp_path_factory) -> str:
    """The model as `transformer2017 train` leaves it."""
    folder = tmp_path_factory.mktemp("model")
    small_model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """Headless Chromium; its tests are skipped, with the reason, where it is not installed."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("no Chromium with its chromedriver is installed (Debian: chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    flags = "headless no-sandbox disable-gpu no-first-run disable-background-networking disable-component-update"
    for flag in [
        *flags.split(),
        "disable-sync",
        "force-prefers-reduced-motion",
        f"user-data-dir={tmp_path_factory.mktemp('profile')}",
    ]:
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    window = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver))
    yield window
    window.quit()
