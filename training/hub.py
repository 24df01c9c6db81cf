"""The Hub: one call that uploads a finished model folder, and nothing else that lies in it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import OfflineModeIsEnabled
from transformer2017.configuration import RunError, UsageError, in_a_line
from transformers.trainer_utils import HubStrategy

from .training_arguments import TrainingArguments

# Weights, config and code of the model, its tokenizer, its card and the pictures in it: no checkpoints, no corpora.
UPLOADED = ("*.safetensors", "*.safetensors.index.json", "*.py", "*.spm", "README.md", "*.png")
UPLOADED_JSON = (
    "config.json",
    "generation_config.json",
    "manifest.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "special_tokens_map.json",
)


def push_folder(folder: str | Path, repo_id: str, *, private: bool | None = None, token: str | None = None) -> str:
    """Uploads model, code, pipeline, tokenizer and card of a folder in one commit.

    Args:
        folder: As `transformer2017 train` or `save_pretrained` of model and tokenizer wrote it.
        repo_id: Such as "me/en-de"; made if it is not there.
        private: Whether a new repository is private; the account's default if None.
        token: Of the account; the one that `hf auth login` stored if None.

    Returns:
        The address of the commit.

    Raises:
        UsageError: If the folder holds no model.
        RunError: If the Hub cannot be reached or refuses.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise UsageError(f"{folder} holds no model to upload (config.json and *.safetensors)")
    with _refusals_in_a_sentence(repo_id):
        api = HfApi(token=token)
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            allow_patterns=[*UPLOADED, *UPLOADED_JSON],
            ignore_patterns=["*/*"],  # of the folder itself only
            commit_message="Upload the model, its tokenizer and its card",
        )
    return str(commit)


@contextmanager
def _refusals_in_a_sentence(repo_id: str) -> Iterator[None]:
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise RunError(f"{repo_id} cannot be uploaded to: HF_HUB_OFFLINE is set") from error
    except Exception as error:  # of the library's own kinds, and of its HTTP client, which changes with its version
        raise RunError(f"{repo_id} cannot be uploaded to: {in_a_line(error)}") from error


class Upload:
    """The upload that the flags of a run ask for, in place of `Trainer`'s own.

    That one sends every checkpoint, and with it `training_args.bin`, which is a pickle.

    Args:
        arguments: Those of the run; `push_to_hub` is taken out of them.

    Raises:
        UsageError: If they ask for uploads while training.
        RunError: If the Hub cannot be reached or refuses: better before a long run than after it.
    """

    def __init__(self, arguments: TrainingArguments) -> None:
        self.wanted, arguments.push_to_hub = arguments.push_to_hub, False
        self.repo_id = arguments.hub_model_id or Path(arguments.output_dir).resolve().name
        self.private, self.token = arguments.hub_private_repo, arguments.hub_token
        if not self.wanted:
            return
        if arguments.hub_strategy not in ("end", HubStrategy.END):
            raise UsageError("--hub_strategy can be end alone: the finished folder is uploaded, in one commit.")
        with _refusals_in_a_sentence(self.repo_id):
            created = HfApi(token=self.token).create_repo(self.repo_id, private=self.private, exist_ok=True)
        self.repo_id = created.repo_id

    def push(self, folder: Path) -> str:
        """Uploads the finished folder, and gives the address of the commit."""
        return push_folder(folder, self.repo_id, private=self.private, token=self.token)
