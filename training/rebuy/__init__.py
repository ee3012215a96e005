"""Repurchase: the probability that a customer buys a product again within a horizon.

Reading order: `orders` (the table) → `features` (what is known at an instant) → `customers` and `products` (its two
halves) → `model` (two stages of boosted trees) → `bench` (the command). Formulas: docs/formulas/rebuy.md.
"""
