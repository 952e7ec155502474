"""What is decided at an epoch boundary: plans, the contract of a policy, scores, budgets. Imports numpy alone."""
