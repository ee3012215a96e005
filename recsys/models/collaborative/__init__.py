"""Collaborative filtering: who follows whom tells what else a viewer may like.

Order of reading: `interactions` → `protocol` → `low_pass`, `ease`, `als`, `fold_in` → `validation`, `response`,
`search`, `ensemble`, `select`. Only `als` imports `implicit`, and nothing else here imports `als` when it is imported.
"""
