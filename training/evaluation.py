"""What an evaluation found, as a JSON document and as tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from training.exposure import GAP


@dataclass(frozen=True)
class Evaluation:
    """The result: `body` as a JSON document, `text` as tables."""

    body: dict[str, Any]

    def document(self) -> dict[str, Any]:
        """The JSON document."""
        return self.body

    def text(self) -> str:
        """Tables for a terminal or a Markdown page."""
        lines = [
            f"{self.body['requests']} requests by {self.body['users']} users, {self.body['rooms']:.1f} rooms live each"
        ]
        lines += [
            "",
            "| method | stratum | value | requests | NDCG@10 | 95 % | Hit@1 | Hit@10 | MRR |",
            "|" + "---|" * 9,
        ]
        for row in self.body["metrics"]:
            lines.append(
                f"| {row['method']} | {row['stratum']} | {row['value']} | {row['requests']} | "
                f"{row['ndcg_at_10']:.4f} | {row['ndcg_at_10_low']:.4f}–{row['ndcg_at_10_high']:.4f} | "
                f"{row['hit_at_1']:.4f} | {row['hit_at_10']:.4f} | {row['mrr']:.4f} |"
            )
        lines += ["", "| laotie less | host | NDCG@10 | 95 % |", "|" + "---|" * 4]
        lines += [
            f"| {row['over']} | {row['host_known']} | {row['mean']:+.4f} | {row['low']:+.4f} … {row['high']:+.4f} |"
            for row in self.body["gains"]
        ]
        said = ", ".join(f"{key} {_short(value)}" for key, value in self.body["fan_reach"].items())
        lines += ["", f"fan reach: {said or 'nothing to judge it on'}"]
        lines += ["", "| hosts | live | first places | entered | gap | 95 % |", "|" + "---|" * 6]
        of_group: dict[str, list[str]] = {}
        for row in self.body["exposure"]:
            said = f"{row['share']:+.3f} | {row['low']:+.3f} … {row['high']:+.3f}"
            of_group.setdefault(row["group"], []).append(said if row["side"] == GAP else f"{row['share']:.3f}")
        lines += [f"| {group} | {' | '.join(shares)} |" for group, shares in of_group.items()]
        weight = {key: value for key, value in self.body["private_weight"].items() if key != "reliability"}
        said = ", ".join(f"{key} {_short(value)}" for key, value in weight.items())
        lines += ["", f"private weight, as a chance: {said or 'nothing to judge it on'}"]
        lines += ["", "| head | ties | base rate | AUC | log loss | skill | 95 % | ECE | by chance |", "|" + "---|" * 9]
        for head in self.body["heads"]:
            if "skipped" in head:
                lines.append(f"| {head['head']} | {head['skipped']} |" + " |" * 7)
                continue
            lines.append(
                f"| {head['head']} | {head['rows']:.0f} | {head['base_rate']:.5f} | {head['auc']:.4f} | "
                f"{head['log_loss']:.5f} | {head['skill']:.4f} | {head['skill_low']:.4f}–{head['skill_high']:.4f} | "
                f"{head['ece']:.5f} | {head['ece_chance']:.5f} |"
            )
        for row in self.body["demand"]:
            said = ", ".join(f"{key} {_short(value)}" for key, value in row.items() if isinstance(value, int | float))
            lines += ["", f"demand, {row['quantity']}: {row.get('skipped', said)}"]
        return "\n".join(lines)


def _short(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.0f}"
