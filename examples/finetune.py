"""Fine-tunes a translator with plain Trainer: python finetune.py MODEL SOURCE TARGET OUTPUT_DIR [MAX_STEPS]."""

import sys
from pathlib import Path

import transformer2017  # noqa: F401  registers the model with the Auto classes
from datasets import Dataset
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
)

if len(sys.argv) not in (5, 6):
    sys.exit(__doc__)
name, source, target, output_dir, *steps = sys.argv[1:]
model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(name), AutoTokenizer.from_pretrained(name)
lines = [Path(file).read_text(encoding="utf-8").removesuffix("\n").split("\n") for file in (source, target)]
pairs = Dataset.from_dict(dict(zip(("source", "target"), lines, strict=True)))
pairs = pairs.map(lambda rows: tokenizer(rows["source"], text_target=rows["target"]), batched=True)
arguments = Seq2SeqTrainingArguments(
    output_dir, learning_rate=1e-4, per_device_train_batch_size=32, max_steps=int(*steps or [1000]), report_to="none"
)
collator = DataCollatorForSeq2Seq(tokenizer, model)
trainer = Seq2SeqTrainer(model, arguments, collator, train_dataset=pairs, processing_class=tokenizer)
trainer.train()
trainer.save_model()
