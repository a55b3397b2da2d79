"""Statistics of one training curve: its shape, its noise, and the confidence of a rise or a trend.

The words used here: a *valley* is the best fit of a curve that first falls and then rises (each part may be empty),
found by least squares without choosing a bandwidth. What it leaves over is the curve's *noise*: its size, and how much
of it carries over from one epoch to the next. Both go into the questions that are asked by simulation: "if this curve
had only fallen and levelled off, with the noise that it shows, how often would it look like this?"

Pure functions of float64 arrays without gaps. No torch. Seeds are fixed, so the same curve gets the same answer.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SIMULATIONS = 400
SEED = 0
MOST_POINTS = 1000
"""Epochs of a curve that is simulated as it is; a longer one is simulated as that many means at most."""
ROUNDING = 1e-6
"""Changes below this part of a value are float32 rounding, not signal."""
SPIKE = 4.0


@dataclass(frozen=True)
class Valley:
    """The best falling-then-rising fit of a curve. `bottom` is the index of its lowest point."""

    fit: Array
    bottom: int
    num_levels: int


@dataclass(frozen=True)
class Noise:
    """The residuals of a valley: a standard deviation at each epoch, their lag-1 correlation, degrees of freedom.

    `shocks` are the residuals at unit variance, heavy tail included; None where there are too few to draw from.
    """

    sigma: Array
    correlation: float
    freedom: float
    shocks: Array | None = None

    @property
    def typical(self) -> float:
        """One figure for the whole curve."""
        return float(np.median(self.sigma)) if len(self.sigma) else 0.0


@dataclass(frozen=True)
class Rise:
    """The rise of a curve's end above its lowest stretch, with the confidence that noise does not explain it."""

    confidence: float
    amount: float
    low: float
    late: float


@dataclass(frozen=True)
class Trend:
    """A straight line through the last part of a curve. `change` is what it does over the whole part."""

    slope: float
    error: float
    change: float
    length: int

    @property
    def confidence_falling(self) -> float:
        """The confidence that the line falls, from 0 to 1."""
        return 1 - student_tail(-self.slope / self.error, self.length - 2) if self.error > 0 else float(self.slope < 0)

    @property
    def confidence_rising(self) -> float:
        """The confidence that the line rises, from 0 to 1."""
        return 1 - self.confidence_falling if self.error > 0 else float(self.slope > 0)


def falling_fit(values: Array) -> Array:
    """The least-squares fit that never rises (pool adjacent violators)."""
    levels: list[tuple[float, int]] = []
    for value in values.tolist():
        mean, count = value, 1
        while levels and levels[-1][0] <= mean:
            other, weight = levels.pop()
            mean, count = (mean * count + other * weight) / (count + weight), count + weight
        levels.append((mean, count))
    return np.repeat([mean for mean, _ in levels], [count for _, count in levels])


def fit_valley(values: Array) -> Valley:
    """The least-squares fit that falls and then rises. In O(n): both halves' errors come from one pass each."""
    falling = _errors_of_falling_prefixes(values)
    rising = _errors_of_falling_prefixes(values[::-1])[::-1]
    total = falling + np.append(rising[1:], 0.0)
    split = int(np.argmin(np.round(total / max(float(total.max()), 1e-300), 12)))
    fit = np.concatenate([falling_fit(values[: split + 1]), falling_fit(values[split + 1 :][::-1])[::-1]])
    return Valley(fit, int(np.argmin(fit)), 1 + int(np.count_nonzero(np.diff(fit))))


def _errors_of_falling_prefixes(values: Array) -> Array:
    """The squared error of the best falling fit to each prefix."""
    levels: list[tuple[float, int, float]] = []  # mean, count, squared error within
    errors, total = [], 0.0
    for value in values.tolist():
        mean, count, within = value, 1, 0.0
        while levels and levels[-1][0] <= mean:
            other, weight, error = levels.pop()
            total -= error
            within += error + (mean - other) ** 2 * count * weight / (count + weight)
            mean, count = (mean * count + other * weight) / (count + weight), count + weight
        levels.append((mean, count, within))
        total += within
        errors.append(total)
    return np.array(errors)


def estimate_noise(values: Array, valley: Valley | None = None) -> Noise:
    """The noise of a curve around its valley, allowed to change slowly over the run.

    Where the curve is steep, noise hides in the fit's freedom to bend; so the size never falls below what the
    differences of neighbours tell (Gasser, Sroka and Jennen-Steinmetz 1986), measured by medians so that one jump does
    not count.
    """
    n = len(values)
    valley = valley or fit_valley(values)
    floor = max(ROUNDING * float(np.median(np.abs(values))), 1e-12) if n else 0.0
    if n < 3:
        return Noise(np.full(n, floor), 0.0, 1.0)
    residuals = values - valley.fit
    levels = valley.num_levels / n
    window = max(9, n // 3)
    local = np.sqrt(_moving_mean(residuals**2, window)) * bending_allowance(levels)
    sigma = np.maximum(np.maximum(local, neighbour_noise(values, window)), floor)
    # The bending lowers the correlation by about 0.43 * levels (simulated like `bending_allowance`).
    correlation = (_correlation(residuals) + 0.43 * levels) / (1 - 0.55 * levels) if n >= 8 else 0.0
    shocks = residuals / sigma
    spread = math.sqrt(float(np.mean(shocks**2)))
    usable = n >= 20 and spread > 0.2
    freedom = max(3.0, (n - 2) / 2, (n - valley.num_levels) / 2)
    return Noise(sigma, float(np.clip(correlation, 0.0, 0.9)), freedom, shocks / spread if usable else None)


def bending_allowance(levels: float) -> float:
    """The factor on the residuals' spread that corrects for the valley following the noise.

    `levels` are the fit's levels per epoch. On level noise of any carry-over the fit leaves 1 - 1.35 * levels of the
    variance (simulated, 10 to 400 epochs).
    """
    return min(2.5, 1 / math.sqrt(max(1 - 1.35 * levels, 0.16)))


def neighbour_noise(values: Array, window: int) -> Array:
    """Local standard deviation from how far each value lies off the line between its neighbours.

    The line's own bend counts too where the curve bends more than it wobbles; the smaller of the second and third
    differences keeps most of that out.
    """
    n = len(values)
    if n < 4:
        return np.zeros(n)
    second = np.abs(values[2:] - 2 * values[1:-1] + values[:-2]) / math.sqrt(6)
    spread = _moving_median(np.concatenate([second[:1], second, second[-1:]]), window) * 1.4826
    if n < 6:
        return spread
    third = np.abs(values[3:] - 3 * values[2:-1] + 3 * values[1:-2] - values[:-3]) / math.sqrt(20)
    other = _moving_median(np.concatenate([third[:2], third, third[-1:]]), window) * 1.4826
    return np.minimum(spread, other)


def typical_wobble(values: Array) -> float:
    """One figure for how far values lie off their neighbours' line; jumps and collapses hardly count."""
    return float(np.median(neighbour_noise(values, len(values)))) if len(values) >= 4 else 0.0


def carried_noise(values: Array) -> tuple[float, float]:
    """Standard deviation of the noise and its lag-1 correlation, from how far values lie off their neighbours' lines.

    Second differences over one epoch and over two have variances of 6 - 8r + 2r^2 and 6 - 8r^2 + 2r^4 times the
    noise's, where r is the correlation; medians keep jumps out of both. At most 0.6 of correlation is believed.
    """
    noise = typical_wobble(values)
    if len(values) < 20 or noise == 0:
        return noise, 0.0
    near = np.abs(values[2:] - 2 * values[1:-1] + values[:-2])
    far = np.abs(values[4:] - 2 * values[2:-2] + values[:-4])
    spread = float(np.median(near)) * 1.4826
    if spread == 0:
        return noise, 0.0
    ratio = (float(np.median(far)) * 1.4826 / spread) ** 2
    carried = float(np.clip((ratio - 1) / 1.3, 0.0, 0.6))
    return max(noise, spread / math.sqrt(6 - 8 * carried + 2 * carried**2)), carried


def counted_images(accuracies: Array) -> int | None:
    """The smallest number of images that these accuracies can be fractions of; None when it is above 2,000.

    Accuracies are counts over a number of images. Read from their values, it tells how coarse they are.
    """
    values = np.unique(accuracies)
    if not len(values):
        return None
    values = values[:: max(1, len(values) // 100)]  # a hundred different ones tell as much as all
    sizes = np.arange(1, 2001, dtype=np.float64)
    counts = values[:, None] * sizes
    fits = np.all(np.abs(counts - np.round(counts)) < 1e-4 * np.sqrt(sizes), axis=0)
    return int(sizes[np.argmax(fits)]) if fits.any() else None


def normal_quantile(share: float) -> float:
    """The value below which this share of a normal distribution lies."""
    return NormalDist().inv_cdf(share)


def _correlation(residuals: Array) -> float:
    """Lag-1 correlation as it stands."""
    power = float(residuals @ residuals)
    return float(residuals[1:] @ residuals[:-1]) / power if power > 0 else 0.0


def _moving_mean(values: Array, window: int) -> Array:
    sums = np.concatenate([[0.0], np.cumsum(values)])
    low, high = _windows(len(values), window)
    means: Array = (sums[high] - sums[low]) / (high - low)
    return means


def _moving_median(values: Array, window: int) -> Array:
    low, _ = _windows(len(values), window)
    if len(values) <= window:
        return np.full(len(values), np.median(values))
    stride = max(1, window // 8)  # the spread changes slowly: every value would cost O(n * window)
    picks = np.arange(0, len(values), stride)
    medians = np.median(np.lib.stride_tricks.sliding_window_view(values, window)[low[picks]], axis=1)
    return np.interp(np.arange(len(values)), picks, medians)


def _windows(n: int, window: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Start and end of the window around each index, moved inwards at the ends so that it keeps its length."""
    window = min(window, n)
    low = np.clip(np.arange(n) - window // 2, 0, n - window)
    return low, low + window


def clip_spikes(values: Array) -> Array:
    """The curve with single-epoch spikes cut down to SPIKE times the noise around the median of five."""
    n = len(values)
    if n < 8:
        return values
    padded = np.concatenate([values[:2], values, values[-2:]])
    padded[:2], padded[-2:] = values[1::-1][:2], values[:-3:-1][:2]
    middle = np.median(np.lib.stride_tricks.sliding_window_view(padded, 5), axis=1)
    middle[0], middle[-1] = np.median(values[:3]), np.median(values[-3:])
    off = np.abs(values - middle)
    reach = SPIKE * np.maximum(1.4826 * _moving_median(off, max(15, n // 4)), ROUNDING * np.abs(middle))
    steep = np.maximum(np.abs(np.gradient(middle)), np.abs(np.gradient(values)) * (np.arange(n) < 3))
    return np.clip(values, middle - reach - steep, middle + reach + steep)


def coarsened(values: Array) -> tuple[Array, int]:
    """The curve as at most MOST_POINTS means of neighbouring epochs, and how many epochs each is of.

    Simulating a curve costs as much as it is long; what is asked of a long one does not hang on single epochs.
    """
    block = -(-len(values) // MOST_POINTS)
    if block <= 1:
        return values, 1
    whole = len(values) // block * block
    means = values[:whole].reshape(-1, block).mean(axis=1)
    return (np.append(means, values[whole:].mean()) if whole < len(values) else means), block


def measure_rise(values: Array) -> Rise:
    """Measure the rise of the curve's end above its lowest stretch, and its confidence.

    The yardstick: the mean of the last w values less the lowest earlier mean of w values, over its noise, for the w
    that shows it best. The same is measured on simulated curves that follow the best fit that never rises, with this
    curve's own noise. `confidence` is the part of those that show less.
    """
    n = len(values)
    if n < 4:
        return Rise(0.0, 0.0, float("nan"), float("nan"))
    values, _ = coarsened(clip_spikes(values))
    n = len(values)
    noise = estimate_noise(values)
    simulated = falling_fit(values) + _simulate(noise, n)
    yardstick, low, late = _late_over_low(values[None], noise.sigma)
    others, _, _ = _late_over_low(simulated, noise.sigma)
    confidence = float(np.mean(others < yardstick[0])) if late[0] > low[0] else 0.0
    return Rise(confidence * SIMULATIONS / (SIMULATIONS + 1), float(late[0] - low[0]), float(low[0]), float(late[0]))


def _late_over_low(curves: Array, sigma: Array) -> tuple[Array, Array, Array]:
    """For each row: the largest standardised difference, and the two means that it was found between."""
    n = curves.shape[1]
    sums = np.concatenate([np.zeros((len(curves), 1)), np.cumsum(curves, axis=1)], axis=1)
    best = np.full(len(curves), -np.inf)
    low, late = np.zeros(len(curves)), np.zeros(len(curves))
    for width in _widths(n):
        means = (sums[:, width:] - sums[:, :-width]) / width
        end = means[:, -1]
        lowest = means[:, : n - 2 * width + 1].min(axis=1)
        scale = math.sqrt(float(np.mean(sigma[-width:] ** 2)) * 2 / width) or 1e-300
        better = (end - lowest) / scale > best
        best = np.where(better, (end - lowest) / scale, best)
        low, late = np.where(better, lowest, low), np.where(better, end, late)
    return best, low, late


def _widths(n: int) -> list[int]:
    widths = [w for w in (2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233) if w <= n // 3]
    return widths or [1]


def _simulate(noise: Noise, n: int) -> Array:
    """SIMULATIONS rows of noise like the curve's: same size, same carry-over, its size as uncertain as it is."""
    rng = np.random.default_rng(SEED)
    shocks = rng.standard_normal((SIMULATIONS, n))
    if noise.shocks is not None:
        shocks = noise.shocks[rng.integers(0, len(noise.shocks), size=(SIMULATIONS, n))]
    if noise.correlation > 0:
        keep = math.sqrt(1 - noise.correlation**2)
        for i in range(1, n):
            shocks[:, i] = noise.correlation * shocks[:, i - 1] + keep * shocks[:, i]
    doubt = np.sqrt(noise.freedom / rng.chisquare(noise.freedom, size=(SIMULATIONS, 1)))
    return shocks * noise.sigma * np.minimum(doubt, 5.0)


def locate_bottom(values: Array) -> tuple[int, int, int]:
    """Index of the lowest point, and the earliest and latest index where it may as well lie.

    The range holds 90% of the places where simulated curves, the valley with this curve's own noise, have theirs.
    """
    n = len(values)
    if n < 4:
        index = int(np.argmin(values))
        return index, index, index
    calm, block = coarsened(clip_spikes(values))
    valley = fit_valley(calm)
    noise = estimate_noise(calm, valley)
    width = 1 if n < 8 else 3
    curves = valley.fit + _simulate(noise, len(calm))
    smooth = np.lib.stride_tricks.sliding_window_view(curves, width, axis=1).mean(axis=2)
    places = np.argmin(smooth, axis=1) + width // 2
    index = int(np.argmin(values))
    low, high = (int(place) for place in np.quantile(places, [0.05, 0.95], method="nearest"))
    return index, min(low * block, index), max(min((high + 1) * block, n) - 1, index)


def fit_trend(values: Array, length: int) -> Trend:
    """A straight line through the last `length` values, its error made larger where residuals carry over."""
    tail = values[-length:]
    m = len(tail)
    if m < 3:
        return Trend(0.0, 0.0, 0.0, m)
    times = np.arange(m) - (m - 1) / 2
    slope = float(times @ tail / (times @ times))
    residuals = tail - tail.mean() - slope * times
    sigma = math.sqrt(float(residuals @ residuals) / (m - 2))
    carried = float(np.clip(_correlation(residuals) + 1 / m, 0.0, 0.8)) if m >= 8 else 0.0
    sigma = max(sigma, ROUNDING * float(np.abs(tail).mean())) * math.sqrt((1 + carried) / (1 - carried))
    return Trend(slope, sigma / math.sqrt(float(times @ times)), slope * (m - 1), m)


def student_tail(t: float, freedom: int) -> float:
    """P(T > t) of Student's distribution with a whole number of degrees of freedom, exactly (Abramowitz 26.7.3-4)."""
    if t < 0:
        return 1 - student_tail(-t, freedom)
    nu = max(freedom, 1)
    if nu > 200:
        return 0.5 * math.erfc(t * (1 - 1 / (4 * nu)) / math.sqrt(2 * (1 + t * t / (2 * nu))))
    angle = math.atan(t / math.sqrt(nu))
    sine, square = math.sin(angle), math.cos(angle) ** 2
    odd = nu % 2
    term = math.cos(angle) if odd else 1.0
    total = term if nu > 1 else 0.0
    for k in range(2 + odd, nu - 1, 2):
        term *= square * (k - 1) / k
        total += term
    inside = 2 / math.pi * (angle + sine * total) if odd else sine * total
    return max(0.0, (1 - inside) / 2)
