"""One file per pruning method. The folder is scanned (`hf_dynprune.registry`): a new file needs no other change."""
