"""Shared by methods for different tokenizers: distributions of pairs, compared by rank, and their mean."""

from harness.losses import cross_entropy, log_probs
from harness.method import Tokens


def merged(tokens: Tokens, temperature: float, merge: str = "chain"):
    """Log-probabilities [G, V] of the student and [G, W] of the teacher, one row a pair; they need not add up to 1.

    chain  the distribution of the pair's last token, times the probabilities of the text's tokens before it
    first  that of its first row, times what every later row gives to the text's token before that row
    mean   the mean of the log-probabilities of all its rows: the geometric mean
    """
    sides = ((tokens.student, tokens.pairs.student, tokens.labels),)
    sides += ((tokens.teacher, tokens.pairs.teacher, tokens.pairs.labels),)
    both, size = [], tokens.pairs.size
    for logits, pair, labels in sides:
        (log_p,) = log_probs(logits, temperature=temperature)
        inside = pair >= 0
        if merge == "mean":
            total = log_p.new_zeros(size, log_p.shape[-1]).index_add(0, pair[inside], log_p[inside])
            both.append(total / pair[inside].bincount(minlength=size)[:, None])
            continue
        base = (tokens.pairs.last if merge == "chain" else tokens.pairs.first)(pair)
        inside = inside.index_fill(0, base, False)
        read = labels if merge == "chain" else labels.roll(1)
        more = log_p[inside].gather(-1, read[inside, None])[:, 0]
        both.append(log_p[base] + log_p.new_zeros(size).index_add(0, pair[inside], more)[:, None])
    return both


def sorted_gap(ours, theirs, most: int = 0):
    """[G] sum over ranks of |ours - theirs|, each row [G, V] and [G, W] sorted from the largest, 0 after its end.

    With ``most`` only that many of the largest, and no more than the shorter row has.
    """
    width = min(ours.shape[-1], theirs.shape[-1])
    if most:
        ours, theirs = (side.topk(min(most, width), -1).values for side in (ours, theirs))
        return (ours - theirs).abs().sum(-1)
    ours, theirs = (side.sort(-1, descending=True).values for side in (ours, theirs))
    gap = (ours[:, :width] - theirs[:, :width]).abs().sum(-1)
    return gap + ours[:, width:].sum(-1) + theirs[:, width:].sum(-1)


def per_text(tokens: Tokens, values):
    """[N] values [G] of pairs, scaled so that the mean over a text's tokens is the mean over its pairs."""
    return tokens.pairs.at_end(values) * tokens.length / tokens.pairs.count.clamp(min=1)


def hard(tokens: Tokens, weight: float):
    """[N] the cross-entropy of the text's tokens, times ``weight``; where that is 0, nothing."""
    return weight * cross_entropy(tokens.logits, tokens.labels) if weight else 0.0
