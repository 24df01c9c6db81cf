"""Training, a file a stage: arguments, tokenizer, data, batches, schedule, trainer, evaluation, averaging, card."""
