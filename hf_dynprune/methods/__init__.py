"""One file per pruning method; `decisions/registry.py` scans the folder, so a new file needs no other change."""
