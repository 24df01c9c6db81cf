"""`transformer2017 demo`: from spelling to pronunciation, trained from nothing and tried on words it has not seen."""

import argparse
import shlex
import shutil
import sys
from pathlib import Path

UNSEEN = ["transformerless", "vlogosphere", "unfriendable", "cyberpunkish", "quizzification", "zorbatron"]


def run(argv: list[str]) -> int:
    """Trains on the CMU Pronouncing Dictionary, evaluates on held-out words, and shows unseen ones."""
    parser = argparse.ArgumentParser("transformer2017 demo", description=__doc__)
    parser.add_argument(
        "--recipe",
        choices=["quick", "full"],
        default="quick",
        help="quick: some minutes on two cores; full: some hours, towards the published figures (default: quick)",
    )
    parser.add_argument("--output_dir", type=Path, default=Path("runs/pronunciation"), help="(default: %(default)s)")
    flags, rest = parser.parse_known_args(argv)
    from transformer2017.training import pronunciation
    from transformer2017.training.flags import Flags
    from transformer2017.training.train import say

    processes = Flags(rest).processes()  # several under torchrun, of which one tells and tries
    with processes.main_process_first():
        files = pronunciation.write_files(flags.output_dir.with_name(flags.output_dir.name + "-data"))
    say(f"English spelling to phonemes, from the CMU Pronouncing Dictionary, in {files['train'][0].parent}")
    folder = pronunciation.train_on(files, flags.recipe, flags.output_dir, rest)
    if not processes.is_main_process:
        return 0
    scores, shown = pronunciation.try_out(folder, files["test"], UNSEEN)
    print(f"\n{scores['sentences']:,} words held out: {describe(scores)}")
    print("\nWords that the dictionary does not have:")
    for word, phonemes in shown:
        print(f"    {word:<16} {phonemes}")
    print("\nTry next:\n")
    for command in next_commands(folder, files):
        print(f"    {command}")
    return 0


def describe(scores: dict[str, float]) -> str:
    """The error rates beside the published ones."""
    return (
        f"phoneme error rate {scores['per']:.1f}%, word error rate {scores['wer']:.1f}% "
        "(published for a Transformer, trained to the end: 5.2% and 22.1%)"
    )


def next_commands(folder: Path, files: dict[str, tuple[Path, Path]]) -> list[str]:
    """Three commands that work as printed, from where this one was started."""
    command = _own_name()
    model, source, target = (shlex.quote(str(path)) for path in (folder, *files["test"]))
    return [
        f"echo attention | {command} translate {model}",
        f"{command} evaluate {model} --source {source} --target {target}",
        f"{command} demo --recipe full --output_dir {shlex.quote(str(folder) + '-full')}",
    ]


def _own_name() -> str:
    """What calls this program where the user is: by its name, by its path, or as a module of this Python."""
    if shutil.which("transformer2017"):
        return "transformer2017"
    if Path(sys.argv[0]).name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m transformer2017"
    return shlex.quote(sys.argv[0])
