"""Low-rank adapters: on PaddleNLP's LoRAModel in memory, in PEFT's layout on disk."""
