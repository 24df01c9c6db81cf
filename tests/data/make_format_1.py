"""Made tests/data/format-1, once, with the first version of the format; the folder is the proof, so never again."""

import json
from pathlib import Path

import torch
import transformer2017

torch.manual_seed(1)
config = transformer2017.Transformer2017Config(
    vocab_size=50, d_model=16, d_ff=24, num_heads=2, d_k=6, d_v=4, encoder_layers=2, decoder_layers=1, logits_bias=True
)
model = transformer2017.Transformer2017ForConditionalGeneration(config).eval()
for parameter in model.parameters():
    torch.nn.init.normal_(parameter, mean=0.1, std=0.5)
folder = Path(__file__).parent / "format-1"
model.save_pretrained(folder)
for code in folder.glob("*.py"):  # what must keep loading is the weights and the configuration, by today's code
    code.unlink()
ids = torch.tensor([[5, 17, 9, 2], [8, 30, 2, 0]])
recorded = {"input_ids": ids.tolist(), "logits": model(ids, decoder_input_ids=ids).logits.tolist()}
(folder / "recorded.json").write_text(json.dumps(recorded) + "\n")
