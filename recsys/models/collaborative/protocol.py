"""What every collaborative model is: fit on ties, score from histories."""

from __future__ import annotations

from typing import Protocol

from recsys.models.collaborative.interactions import Csr, FloatArray, Interactions


class FittedCollaborative(Protocol):
    """A trained model. It knows hosts, not users: a user is his history."""

    @property
    def name(self) -> str: ...

    def scores(self, histories: Csr) -> FloatArray:
        """Scores of every host for every history.

        Args:
            histories: confidences, CSR of shape (n_queries, n_hosts); the users need not have been trained on.

        Returns:
            float32, shape (n_queries, n_hosts), higher is better. Comparable within a row only. Hosts of the history
            itself get some score too; whoever wants unseen hosts only leaves them out.
        """
        ...


class CollaborativeModel(Protocol):
    """A model and its settings, not yet trained."""

    @property
    def name(self) -> str: ...

    def fit(
        self, interactions: Interactions, seed: int, start: FittedCollaborative | None = None
    ) -> FittedCollaborative:
        """Train. The same interactions, seed and start give the same model.

        Args:
            start: this model as fitted before, on other ties of the same hosts or of the first of them. Who iterates
                goes on from it; who solves at once does without.
        """
        ...
