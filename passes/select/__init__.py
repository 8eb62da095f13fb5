"""From importance to a plan: profiles, budgets."""
