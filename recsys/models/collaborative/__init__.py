"""Collaborative filtering: who follows whom tells what else a viewer may like.

Order of reading: `interactions` → `protocol` → `low_pass`, `ease`, `neighbours`, `als`, `fold_in`,
`adam`, `cosine` → `validation`, `response`,
`search`, `ensemble`, `select`. Only `als` imports `implicit`, and nothing else here imports `als` when it is imported.
"""
