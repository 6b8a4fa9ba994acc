"""A comparison as a table for the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from webcompile.compare.report import Answers, Report, Split, TargetReport


def describe(report: Report) -> str:
    """The table, the reasons for what is missing, and every split."""
    head = ("target", "variant", "greedy", "seeded", "max diff", "mean diff", "prefill/s", "decode/s", "adapter")
    rows = [head, *(_row(target) for target in report.targets)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head) - 1)]
    lines = [
        f"{report.model}, {report.quantization}: {len(report.prompts)} prompts, {report.max_tokens} tokens each, "
        f"against {report.reference}",
        "",
        *("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]) for row in rows),
    ]
    lines += [f"{of.name}: not run, {of.message} [{of.code}] {of.hint}".rstrip() for of in report.missing]
    lines += [line for target in report.targets for line in describe_splits(target)]
    for target in report.targets:
        lines += [
            f"{target.name}, layer {layer.index}: max diff {layer.max_difference:.2e}, relative {layer.relative:.2e}"
            for layer in target.layers
            if target.name != report.reference
        ]
    lines.append("the targets agree" if report.agreed else "THE TARGETS DIFFER by more than rounding explains")
    return "\n".join(lines)


def describe_splits(target: TargetReport) -> Iterator[str]:
    """A line for every answer that parts from the reference's."""
    for number, answers in enumerate(target.answers, 1):
        for kind, split in _splits(answers):
            verdict = "explained" if split.explained else "NOT EXPLAINED"
            yield (
                f"{target.name}, prompt {number}, {kind}: parts at token {split.position} "
                f"({split.reference_token} there, {split.other_token} here); the reference's logits are {split.gap:.2e} "
                f"apart, these {split.other_gap:.2e}, and the two differ by up to {split.error:.2e}: {verdict}"
            )


def _splits(answers: Answers) -> Iterator[tuple[str, Split]]:
    for kind, split in (("greedy", answers.split), ("seeded", answers.seeded_split)):
        if split is not None:
            yield kind, split


def _row(target: TargetReport) -> tuple[str, ...]:
    return (
        target.name,
        target.variant,
        f"{target.same_tokens}/{target.num_tokens}",
        f"{target.seeded_same_tokens}/{target.num_tokens}",
        f"{target.max_difference:.2e}",
        f"{target.mean_difference:.2e}",
        _rate(target.prefill_tps),
        _rate(target.decode_tps),
        target.adapter,
    )


def _rate(tokens_per_second: float | None) -> str:
    return "-" if tokens_per_second is None else f"{tokens_per_second:.1f}"
