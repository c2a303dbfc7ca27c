"""The collapse alarm: what a codebook's usage over a whole validation pass says."""

from vqtrain.metrics.usage import CodeUsage

# A perplexity below this share of K, or usage below that share of its ceiling, is a collapse:
# most of the codebook is paid for (by log2 K bits a code under a uniform prior) and not used.
LEAST_PERPLEXITY = 0.1
LEAST_USAGE = 0.5


def collapse_warnings(usages: list[CodeUsage]) -> tuple[str, ...]:
    """A line for every level whose codebook seems to have collapsed.

    Args:
        usages: of each level, over a whole split; a batch has too few codes to tell.
    """
    lines = []
    for level, usage in enumerate(usages):
        size = len(usage.counts)
        few = usage.perplexity < LEAST_PERPLEXITY * size
        unused = usage.used < LEAST_USAGE * usage.ceiling
        if few or unused:
            lines.append(
                f"validation hardly uses the codebook of level {level}: perplexity "
                f"{usage.perplexity:.1f} of {size}, usage {usage.used:.0%} of a possible "
                f"{usage.ceiling:.0%}; it has collapsed, unless these items are all alike"
            )
    return tuple(lines)


def usage_scalars(usages: list[CodeUsage]) -> dict[str, float]:
    """The numbers behind the alarm, for the log."""
    named = {}
    for level, usage in enumerate(usages):
        named[f"validation_perplexity_{level}"] = usage.perplexity
        named[f"validation_usage_{level}"] = usage.used
    return named
