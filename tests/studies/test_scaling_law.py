"""The law by data size: forms that come back from their own scores, bands that hold the truth, and honest silence."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from speed.core.errors import UserError
from speed.studies.by_size import Measured
from speed.studies.forms import NAMES, Name
from speed.studies.law_tables import law_tables
from speed.studies.scaling_law import Law, Laws, fit_laws

SIZES = [28_750, 57_500, 115_000, 230_000, 460_000, 920_000]
TRUE: dict[Name, Callable[[float], float]] = {
    "log-linear": lambda size: 61.2 + 0.1 * math.log2(size / 28_750),
    "power": lambda size: 64 - 4 * (size / 28_750) ** -0.5,
    "saturating": lambda size: 64 - 90 / (10 + (size / 28_750) ** 1.5),
}


def simulated(
    law: Callable[[float], float], seeds: int = 5, noise: float = 0.15, same_seeds: bool = True, draw: int = 0
) -> Measured:
    """Runs of a known law: a seed lifts its runs at all sizes alike, and each run has noise of its own."""
    draws = np.random.default_rng(draw)
    lifts = draws.normal(0, noise if same_seeds else 0, seeds)
    return {
        size: {
            seed if same_seeds else seed + seeds * place: {
                "mean": law(size) + lifts[seed] + draws.normal(0, noise)
            }
            for seed in range(seeds)
        }
        for place, size in enumerate(SIZES)
    }  # fmt: skip


def exact(law: Callable[[float], float], sizes: list[int] = SIZES) -> Measured:
    return {size: {0: {"mean": law(size)}} for size in sizes}


def of(laws: Laws, name: Name) -> Law:
    [law] = [law for law in laws.laws if law.form == name]
    return law


@pytest.mark.parametrize("name", NAMES)
def test_a_form_comes_back_from_its_own_scores(name: Name) -> None:
    law = of(fit_laws(exact(TRUE[name])), name)
    for size, found in law.curve.items():
        assert found.value == pytest.approx(TRUE[name](size), abs=0.002)
    assert law.points_a_doubling.value == pytest.approx(TRUE[name](1_840_000) - TRUE[name](920_000), abs=0.002)
    assert law.extrapolation is not None
    assert law.extrapolation.predicted == pytest.approx(law.extrapolation.measured, abs=0.02)


def test_parameters_are_in_examples() -> None:
    power = of(fit_laws(exact(TRUE["power"])), "power").parameters
    assert power == pytest.approx({"limit": 64, "A": 4 * 28_750**0.5, "alpha": 0.5}, rel=1e-3)
    line = of(fit_laws(exact(TRUE["log-linear"])), "log-linear").parameters
    assert line == pytest.approx({"a": 61.2 - 0.1 * math.log2(28_750), "b": 0.1})


def test_a_falling_figure_is_fitted_like_a_rising_one() -> None:
    """Contrastive entropy of held-out pairs falls."""
    law = of(fit_laws(exact(lambda size: 0.4 + (3490 / size) ** 0.5)), "power")
    assert law.parameters == pytest.approx({"limit": 0.4, "A": -(3490**0.5), "alpha": 0.5}, rel=1e-3)


def test_the_papers_two_sizes_give_a_tenth_of_a_point_a_doubling_and_no_form() -> None:
    """SPEED, synthetic data only: 63.2 at 230K (Table 2), 63.4 at 920K (Table 1)."""
    laws = fit_laws({230_000: {0: {"mean": 63.2}}, 920_000: {0: {"mean": 63.4}}}, dollars_per_example=0.001)
    [law] = laws.laws
    assert law.points_a_doubling.value == pytest.approx(0.1)
    assert law.points_a_doubling.seeds is law.points_a_doubling.tasks is None
    assert law.dollars_a_tenth == pytest.approx(920)
    assert law.extrapolation is law.aicc is law.doubling_below_noise is None
    assert laws.best is None
    assert laws.remark == "not identifiable: 2 sizes, and 5 tell"


@pytest.mark.parametrize("name", ["log-linear", "power"])
def test_aicc_finds_the_form_where_the_noise_allows_it(name: Name) -> None:
    laws = fit_laws(simulated(TRUE[name], noise=0.02), resamples=50)
    assert laws.best == name
    assert f"{name}: its AICc is" in laws.remark
    assert laws.noise == pytest.approx(0.02, rel=0.3)


def test_forms_that_the_noise_hides_are_not_told_apart() -> None:
    laws = fit_laws(simulated(lambda size: 63 - 0.8 * (size / 28_750) ** -0.2, noise=0.3, draw=3), resamples=50)
    assert laws.best in (None, "log-linear"), "a line has fewer parameters"
    sizes = SIZES[:5]
    few = fit_laws({size: runs for size, runs in simulated(TRUE["power"]).items() if size in sizes}, resamples=50)
    assert of(few, "saturating").aicc is None, "four parameters from five sizes"
    assert [law.form for law in fit_laws(exact(TRUE["power"], SIZES[:4])).laws] == ["log-linear"]


def test_the_largest_size_left_out_shows_a_form_that_is_wrong() -> None:
    laws = fit_laws(simulated(TRUE["power"], noise=0.05), resamples=200)
    line, power = of(laws, "log-linear").extrapolation, of(laws, "power").extrapolation
    assert line is not None
    assert power is not None
    assert (line.size, line.inside, power.inside) == (920_000, False, True)
    assert line.predicted > line.measured + 0.5, "the curve bends and the line does not"


def test_the_size_from_which_a_doubling_is_below_the_noise() -> None:
    found = fit_laws(simulated(TRUE["power"], noise=0.1), resamples=50)
    law = of(found, "power")
    assert law.doubling_below_noise is not None
    assert found.noise is not None

    def gain(size: float) -> float:
        return TRUE["power"](2 * size) - TRUE["power"](size)

    assert gain(law.doubling_below_noise / 4) > found.noise > gain(law.doubling_below_noise * 4)
    rising = of(fit_laws(simulated(lambda size: 3 * math.log2(size), noise=0.1), resamples=50), "log-linear")
    assert rising.doubling_below_noise is None


def test_doublings_count_as_below_the_noise_from_the_last_that_is_not() -> None:
    """The curve is flat, then steep, then flat: its first doubling brings little too."""

    def curve(size: float) -> float:
        return 64 - 3000 / (100 + (size / 28_750) ** 2.5)

    found = fit_laws(simulated(curve, noise=2.0), resamples=2, forms=["saturating"])
    [law] = found.laws
    assert found.noise is not None
    gains = {size: curve(2 * size) - curve(size) for size in SIZES}
    assert gains[SIZES[0]] < found.noise < max(gains.values())
    assert law.doubling_below_noise is not None
    assert law.doubling_below_noise > max(gains, key=lambda size: gains[size])


def test_nothing_is_foretold_far_beyond_the_largest_size() -> None:
    """A doubling of this line brings less than the noise nowhere, of this curve at some thousand times the data."""
    slow = simulated(lambda size: 64 - 8 * (size / 28_750) ** -0.15, noise=0.05)
    [law] = fit_laws(slow, resamples=2, forms=["power"]).laws
    assert law.doubling_below_noise is None
    forms = law_tables(fit_laws(slow, resamples=2))[0]
    assert not isinstance(forms, str)
    place = forms.head.index("below the noise from")
    assert {row[place] for row in forms.rows[:2]} == {"beyond what can be foretold"}
    dear = fit_laws(exact(lambda size: 50 + 0.01 * math.log2(size)), dollars_per_example=1.0)
    assert of(dear, "log-linear").dollars_a_tenth is None, "ten doublings"


def test_an_exponent_at_the_end_of_those_that_were_tried_is_marked() -> None:
    """Scores of a line: the curve that bends least of all that were tried has a limit of several hundred points."""
    found = fit_laws(exact(lambda size: 3 * math.log2(size)), resamples=2)
    assert of(found, "power").at_ends == ("alpha",)
    assert of(found, "log-linear").at_ends == ()
    forms, _, *sentences = law_tables(found)
    assert not isinstance(forms, str)
    assert forms.rows[1][-1].endswith("alpha 0.02 (at its end)")
    assert any(str(sentence).startswith("At its end: ") for sentence in sentences)
    right = fit_laws(exact(TRUE["power"]))
    assert of(right, "power").at_ends == ()
    power = fit_laws(exact(TRUE["power"]), forms=["power"])
    assert not any(str(sentence).startswith("At its end: ") for sentence in law_tables(power))


def test_a_form_that_is_right_is_refused_as_seldom_as_it_should_be() -> None:
    """By the distribution of chi-square a tenth would be: the noise of five seeds is only an estimate."""
    simulations = [simulated(TRUE["log-linear"], draw=draw) for draw in range(300)]
    found = [fit_laws(runs, resamples=2, forms=["log-linear"]).laws[0].fit for runs in simulations]
    assert all(fit is not None and fit.freedom == 4 for fit in found)
    refused = np.mean([fit is not None and fit.refused for fit in found])
    assert 0.02 < refused < 0.09
    assert np.mean([fit is not None and stats.chi2.sf(fit.chi_square, fit.freedom) < 0.05 for fit in found]) > 0.08


def wave(size: float) -> float:
    """None of the three forms."""
    doublings = math.log2(size / 28_750)
    return 56 + 8 * doublings / 3 + 1.5 * math.sin(1.6 * doublings)


def test_where_no_form_fits_none_is_preferred_and_the_page_says_what_its_bands_are_worth() -> None:
    laws = fit_laws(simulated(wave, noise=0.5), resamples=50)
    assert all(law.fit is not None and law.fit.p < 0.05 for law in laws.laws)
    assert laws.best is None
    assert laws.remark.startswith("none: saturating, whose AICc is ")
    assert laws.remark.endswith(" below that of log-linear, does not fit")
    forms, _, *sentences = law_tables(laws)
    assert not isinstance(forms, str)
    line = laws.laws[0].fit
    assert line is not None
    assert forms.rows[0][2:4] == (f"{line.chi_square:.1f} ({line.freedom})", "<0.001")
    [told] = [str(each) for each in sentences if "fits" in str(each)]
    assert told.startswith("No form fits within the noise")
    assert "too narrow" in told


def test_bands_of_a_form_that_does_not_fit_hold_less_than_they_say() -> None:
    """That is what the page says. Bands that are widened by the root of chi-square over its degrees of freedom (Birge's
    ratio) would not be right either: a wrong form misses the next doubling the same way each time.
    """
    inside, widened = [], []
    gain = wave(2 * SIZES[-1]) - wave(SIZES[-1])
    for draw in range(30):
        [law] = fit_laws(simulated(wave, noise=0.5, draw=draw), resamples=50, forms=["log-linear"]).laws
        bands = [(law.curve[size].seeds, wave(size)) for size in SIZES]
        inside.append([band is not None and band.low <= true <= band.high for band, true in bands])
        found = law.points_a_doubling
        assert found.seeds is not None
        assert law.fit is not None
        ratio = math.sqrt(law.fit.chi_square / law.fit.freedom)
        widened.append(abs(gain - found.value) <= ratio * (found.seeds.high - found.value))
    assert np.mean(inside) < 0.7
    assert np.mean(widened) < 0.1


def test_a_form_that_does_not_fit_is_named_where_another_does() -> None:
    laws = fit_laws(simulated(TRUE["power"], noise=0.05), resamples=2)
    assert laws.best == "power"
    told = [str(each) for each in law_tables(laws)[2:] if "fit within the noise" in str(each)]
    assert told == ["log-linear does not fit within the noise (p below 0.05): its bands are too narrow."]


def test_a_law_of_equal_figures_is_one_without_noise() -> None:
    """Figures that are equal in all seeds differ in their last bits, which is no spread."""
    draws = np.random.default_rng(0)
    equal = {
        size: {seed: {"mean": TRUE["power"](size) + draws.normal(0, 1e-15)} for seed in range(5)} for size in SIZES
    }
    found, without = fit_laws(equal, resamples=2), fit_laws(exact(TRUE["power"]), resamples=2)
    assert found.noise == 0
    assert [law.fit for law in found.laws] == [None] * 3
    assert [law.doubling_below_noise for law in found.laws] == [None] * 3
    assert found.best == without.best == "power"


def test_a_seed_that_some_size_lacks_is_left_out_and_changes_little() -> None:
    whole = simulated(TRUE["log-linear"], noise=0.5)
    lacking = {size: dict(runs) for size, runs in whole.items()}
    del lacking[SIZES[0]][4]
    four = {size: {seed: run for seed, run in runs.items() if seed != 4} for size, runs in whole.items()}
    found = fit_laws(lacking, resamples=50)
    assert found.laws == fit_laws(four, resamples=50).laws
    assert (found.left_out, found.same_seeds) == (5, True)
    noise = fit_laws(whole, resamples=2).noise
    assert noise is not None
    assert found.noise == pytest.approx(noise, rel=0.25)
    assert "Left out of the law: 5 runs with a seed that some size lacks." in law_tables(found)
    assert fit_laws(whole, resamples=2).left_out == 0


def test_a_missing_run_takes_no_coverage_from_the_bands() -> None:
    inside = []
    for draw in range(200):
        runs = simulated(TRUE["log-linear"], draw=draw)
        del runs[SIZES[draw % 6]][draw % 5]
        band = fit_laws(runs, resamples=100, forms=["log-linear"]).laws[0].points_a_doubling.seeds
        inside.append(band is not None and band.low <= 0.1 <= band.high)
    assert 0.85 <= np.mean(inside) <= 0.95


def test_what_the_noise_is_of_is_said() -> None:
    same, other = (fit_laws(simulated(wave, same_seeds=same), resamples=2) for same in (True, False))
    assert (same.same_seeds, other.same_seeds, other.left_out) == (True, False, 0)
    [told] = [str(each) for each in law_tables(same) if str(each).startswith("Noise")]
    assert told.endswith("over seeds, beyond what lifts or lowers a seed at all sizes alike.")
    [told] = [str(each) for each in law_tables(other) if str(each).startswith("Noise")]
    assert told.endswith("over seeds; sizes do not share their seeds, so what lifts or lowers one is in it.")


def test_a_price_that_is_never_reached_is_none() -> None:
    flat = fit_laws(exact(lambda size: 64 - 1e6 * size**-2.0), dollars_per_example=1.0)
    assert of(flat, "power").dollars_a_tenth is None


def held(name: Name, simulations: int, **how: int | bool) -> list[float]:
    """How often 90 % bands hold the true scores, the next doubling, and the largest size that was left out."""
    at = [28_750, 230_000, 920_000, 1_840_000]
    rows = []
    for draw in range(simulations):
        runs = simulated(TRUE[name], draw=draw, **how)  # type: ignore[arg-type]
        [law] = fit_laws(runs, at=at, resamples=100, forms=[name]).laws
        true = [*(TRUE[name](size) for size in at), TRUE[name](1_840_000) - TRUE[name](920_000)]
        found = [*(law.curve[size].seeds for size in at), law.points_a_doubling.seeds]
        inside = [band is not None and band.low <= value <= band.high for band, value in zip(found, true, strict=True)]
        rows.append([*inside, law.extrapolation is not None and law.extrapolation.inside is True])
    return np.mean(rows, axis=0).tolist()


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("same_seeds", [True, False])
def test_bands_over_seeds_hold_the_truth_as_often_as_they_say(seeds: int, same_seeds: bool) -> None:
    assert all(0.85 <= share <= 0.95 for share in held("log-linear", 200, seeds=seeds, same_seeds=same_seeds))


def test_bands_of_a_curve_hold_the_truth_as_often_as_they_say() -> None:
    assert all(0.85 <= share <= 0.95 for share in held("power", 100))


HOLDS = (0.85, 0.95)
"""What 200 simulations of bands that hold 90 % may give."""
NEARLY: dict[tuple[Name, bool, int], tuple[float, float]] = {
    ("power", False, 3): (0.80, 0.93),
    ("saturating", True, 5): (0.85, 0.98),
}
"""Where bands hold less or more: docs/evaluate.md says so."""


@pytest.mark.slow
@pytest.mark.parametrize(("same_seeds", "seeds"), [(True, 3), (True, 5), (False, 3), (False, 5)])
@pytest.mark.parametrize("name", ["power", "saturating"])
def test_bands_of_curves_hold_the_truth_as_often_as_they_say(name: Name, same_seeds: bool, seeds: int) -> None:
    """Half a minute each. Redrawn curves that stay on the grid of exponents have a wider spread, and hold too much.

    Three seeds that differ from size to size are too few for a curve: bands of the power law then hold 83 to 91 %. And
    four parameters from five sizes foretell the sixth within bands that are wide rather than narrow (96.5 %).
    """
    low, high = NEARLY.get((name, same_seeds, seeds), HOLDS)
    shares = held(name, 200, seeds=seeds, same_seeds=same_seeds)
    assert all(low <= share <= high for share in shares), shares
    if (name, same_seeds, seeds) in NEARLY:
        assert not all(HOLDS[0] <= share <= HOLDS[1] for share in shares), "no exception is needed any more"


def test_bands_over_tasks_hold_the_truth_as_often_as_they_say() -> None:
    """Tasks differ by twenty points in level and by a tenth of a point a doubling in what data bring them."""
    inside = []
    draws = np.random.default_rng(0)
    for _ in range(400):
        levels, slopes = draws.normal(0, 20, 8), draws.normal(0.1, 0.1, 8)
        runs = {
            size: {0: {str(task): 50 + levels[task] + slopes[task] * doublings for task in range(8)}}
            for doublings, size in enumerate(SIZES)
        }
        gain = fit_laws(runs, resamples=100, forms=["log-linear"]).laws[0].points_a_doubling
        assert gain.seeds is None
        inside.append(gain.tasks is not None and gain.tasks.low <= 0.1 <= gain.tasks.high)
    assert 0.85 <= np.mean(inside) <= 0.95


def test_a_law_needs_two_sizes_and_shared_tasks() -> None:
    with pytest.raises(UserError, match="at least two sizes"):
        fit_laws({1000: {0: {"A": 1.0}}})
    with pytest.raises(UserError, match="no task in common"):
        fit_laws({1000: {0: {"A": 1.0}}, 2000: {0: {"B": 1.0}}})


def test_the_tables_say_what_is_known_and_a_dash_where_nothing_is() -> None:
    [forms, curves, *sentences] = law_tables(fit_laws(simulated(TRUE["power"], noise=0.05), resamples=100))
    assert not isinstance(forms, str)
    assert not isinstance(curves, str)
    assert [row[0] for row in forms.rows] == ["log-linear", "power", "saturating"]
    assert forms.rows[0][5].endswith("(outside)")
    assert "(outside)" not in forms.rows[1][5]
    assert curves.rows[-1][0] == "1,840,000"
    assert all("±" in cell for row in curves.rows for cell in row[1:])
    assert any("standard deviation of 0.0" in sentence for sentence in sentences)
    [[row], _, form, bands] = [
        part if isinstance(part, str) else part.rows
        for part in law_tables(fit_laws({230_000: {0: {"mean": 63.2}}, 920_000: {0: {"mean": 63.4}}}))
    ]
    assert list(row[:-1]) == ["log-linear", "-", "-", "-", "-", "-", "0.10", "-", "-", "-"]
    assert form == "Form: not identifiable: 2 sizes, and 5 tell."
    assert bands == "No band over seeds: some size has a single seed."
