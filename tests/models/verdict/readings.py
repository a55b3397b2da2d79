"""A reading by hand of each curve of the lab report, written down before any rule was.

The reader looked at the numbers only (tests/models/verdict/notebook_histories.json) and at the report's table.
Epochs count from 1. `may` lists findings that two careful readers could disagree about: neither demanded nor forbidden.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Reading:
    """One reader's notes on one history."""

    notes: str
    best_loss: int
    best_accuracy: int
    must: frozenset[str]
    must_not: frozenset[str]
    begins: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Finding -> the earliest and latest epoch at which the reader would let it begin."""
    wasted: tuple[int, int] | None = None
    """Fewest and most epochs that the reader would call wasted."""


CURVES = {
    "baseline": Reading(
        notes=(
            "Best at epoch 6 by both measures, 1.171 and 0.607, though epochs 3 to 8 are hardly told apart. From "
            "there the validation loss climbs without a break to 1.96 while the training loss still falls, to 0.95 "
            "at epoch 15: overfitting, beyond doubt. From about epoch 20 the training loss rises too, to 1.80, and "
            "by the end accuracy has fallen from 0.61 to 0.36: a second trouble, steps too large for where the "
            "network has got to. 44 epochs wasted."
        ),
        best_loss=6,
        best_accuracy=6,
        must=frozenset({"best-epoch", "overfitting", "wasted-epochs", "collapse", "training-loss-rising"}),
        must_not=frozenset(
            {"still-improving", "slow-learning", "stuck-at-chance", "divergence", "no-problem", "below-chance"}
        ),
        begins={"overfitting": (3, 9), "collapse": (28, 46), "training-loss-rising": (13, 30)},
        wasted=(40, 46),
    ),
    "narrow": Reading(
        notes=(
            "Lowest loss at epoch 4, 1.278; from there it climbs to 1.64 while the training loss goes on falling: "
            "overfitting for sure. The accuracy of 0.5686 at epoch 15 is one lucky epoch among values that swing "
            "between 0.50 and 0.57; its level did not change much after epoch 7 and ends a little lower. No "
            "collapse."
        ),
        best_loss=4,
        best_accuracy=15,
        must=frozenset({"best-epoch", "overfitting", "wasted-epochs", "oscillation"}),
        must_not=frozenset(
            {"still-improving", "slow-learning", "stuck-at-chance", "collapse", "divergence", "no-problem"}
        ),
        begins={"overfitting": (3, 8)},
        wasted=(15, 27),
    ),
    "three_conv": Reading(
        notes=(
            "Best at epoch 6 by both, 1.212 and 0.573. The validation loss then climbs to 1.40. The training loss "
            "falls only to epoch 8 and then rises as well, from 1.24 to 1.37, so the gap opens early and the rest "
            "is training itself getting worse: too large a rate for the end. Accuracy slips from 0.57 to 0.53, far "
            "from a collapse."
        ),
        best_loss=6,
        best_accuracy=6,
        must=frozenset({"best-epoch", "overfitting", "wasted-epochs", "training-loss-rising"}),
        must_not=frozenset(
            {"still-improving", "slow-learning", "stuck-at-chance", "collapse", "divergence", "no-problem"}
        ),
        begins={"overfitting": (3, 10), "training-loss-rising": (7, 16)},
        wasted=(20, 26),
    ),
    "three_blocks": Reading(
        notes=(
            "Lowest loss at epoch 10, best accuracy at 14; between them nothing is told apart. Accuracy holds 0.66 "
            "to 0.69 to epoch 19, then falls to 0.35: collapse. The training loss rises with it from epoch 14, 0.84 "
            "to 1.62, faster than the gap opens, so this is not overfitting in the main: training fell apart."
        ),
        best_loss=10,
        best_accuracy=14,
        must=frozenset({"best-epoch", "collapse", "training-loss-rising", "wasted-epochs"}),
        must_not=frozenset({"still-improving", "slow-learning", "stuck-at-chance", "divergence", "no-problem"}),
        begins={"collapse": (17, 26), "training-loss-rising": (11, 21)},
        wasted=(15, 20),
    ),
    "squeezenet1_1": Reading(
        notes=(
            "Every epoch is a little better than the one before, to the last: loss 23.1 to 3.0, accuracy 0.001 to "
            "0.16. Still improving, and hopelessly slowly: after 100 epochs the loss is above 2.303, which guessing "
            "gives. The first accuracies are far below 0.1, which no guess over ten classes gives: the network "
            "answers with classes that do not exist. Smooth as glass."
        ),
        best_loss=100,
        best_accuracy=99,
        must=frozenset({"best-epoch", "still-improving", "slow-learning", "worse-than-guessing", "below-chance"}),
        must_not=frozenset(
            {"overfitting", "wasted-epochs", "collapse", "stuck-at-chance", "oscillation", "divergence", "no-problem"}
        ),
    ),
    "three_blocks_scheduler": Reading(
        notes=(
            "Best at the last epoch by both, 0.710 and 0.786. Accuracy has risen by 0.045 over the last ten epochs: "
            "still improving, train longer. The training loss is half of the validation loss: a gap is opening, no "
            "overfitting yet."
        ),
        best_loss=30,
        best_accuracy=30,
        must=frozenset({"best-epoch", "still-improving", "generalisation-gap"}),
        must_not=frozenset(
            {
                "overfitting",
                "wasted-epochs",
                "collapse",
                "stuck-at-chance",
                "slow-learning",
                "divergence",
                "training-loss-rising",
                "below-chance",
            }
        ),
    ),
    "three_blocks_dropout": Reading(
        notes=(
            "Lowest loss at epoch 39, but 33 to 39 are not told apart; then it climbs from 0.69 to 0.77, more than "
            "its wobble, while the training loss falls on to 0.18: overfitting, mild, and the accuracy of 0.80 does "
            "not suffer. Nothing is won after about epoch 44. A wide gap."
        ),
        best_loss=39,
        best_accuracy=45,
        must=frozenset({"best-epoch", "overfitting", "wasted-epochs", "generalisation-gap"}),
        must_not=frozenset(
            {
                "still-improving",
                "collapse",
                "stuck-at-chance",
                "slow-learning",
                "divergence",
                "training-loss-rising",
                "below-chance",
            }
        ),
        begins={"overfitting": (30, 43)},
        wasted=(5, 14),
    ),
}

STEADIER = [
    ("three_blocks_scheduler", "baseline"),
    ("three_blocks_scheduler", "three_blocks"),
    ("three_blocks_dropout", "baseline"),
    ("three_blocks_dropout", "narrow"),
    ("three_blocks_dropout", "three_blocks"),
    ("squeezenet1_1", "three_blocks_dropout"),
]
"""Pairs of curves of which every reader calls the first one the more stable."""


@dataclass(frozen=True)
class Row:
    """A row of the report's table: all that it tells of a run, and the reader's word on it."""

    epochs: int
    best_accuracy: tuple[float, int]
    final_accuracy: float
    lowest_loss_epoch: int | None
    must: frozenset[str]
    must_not: frozenset[str]


_COLLAPSED = frozenset({"collapse", "wasted-epochs"})
_HELD = frozenset({"collapse", "stuck-at-chance", "divergence", "still-improving", "no-problem"})

ROWS = {
    "1": Row(50, (0.6201, 10), 0.1658, None, _COLLAPSED, frozenset({"still-improving", "no-problem"})),
    "2": Row(30, (0.6026, 18), 0.5427, 5, frozenset({"overfitting", "wasted-epochs"}), _HELD),
    "2b": Row(50, (0.6074, 6), 0.3577, 6, _COLLAPSED, frozenset({"still-improving", "no-problem"})),
    "3a": Row(30, (0.5686, 15), 0.5113, 4, frozenset({"overfitting", "wasted-epochs"}), _HELD),
    "3b": Row(30, (0.6810, 8), 0.6003, 3, frozenset({"overfitting", "wasted-epochs"}), _HELD),
    "3c": Row(30, (0.5726, 6), 0.5330, 6, frozenset({"overfitting", "wasted-epochs"}), _HELD),
    "3d": Row(30, (0.6924, 14), 0.3531, 10, _COLLAPSED, frozenset({"still-improving", "no-problem"})),
    "6a": Row(30, (0.7158, 10), 0.4269, 10, _COLLAPSED, frozenset({"still-improving", "no-problem"})),
    "6b": Row(30, (0.7856, 30), 0.7856, 30, frozenset({"still-improving"}), _HELD - {"still-improving", "no-problem"}),
    "6c": Row(50, (0.7986, 50), 0.7986, 29, frozenset({"overfitting"}), _HELD - {"still-improving"}),
    "6d": Row(50, (0.8043, 45), 0.8011, 39, frozenset({"overfitting"}), _HELD - {"still-improving"}),
    "6e": Row(50, (0.8192, 49), 0.8167, 37, frozenset({"overfitting"}), _HELD - {"still-improving"}),
    "bonus": Row(30, (0.8431, 16), 0.8388, 4, frozenset({"overfitting", "wasted-epochs"}), _HELD),
}
"""Rows with a curve. Row 5 is two runs: losses that were NaN from the first epoch (divergence, and accuracy at chance)
and the slow one, whose first 100 epochs are in CURVES."""
