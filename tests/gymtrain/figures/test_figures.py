from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import precision_recall_curve, roc_curve

from gymtrain.figures.classification import calibration, confusion_counts, confusion_matrix, precision_recall, roc
from gymtrain.figures.curves import learning_curves, learning_rate
from gymtrain.figures.importance import feature_importance
from gymtrain.figures.look import plain
from gymtrain.figures.regression import predicted_against_actual, residuals
from gymtrain.figures.samples import is_image, mistakes
from gymtrain_trackers.images import decode_png, figure_png

ROWS = "40 rows of the test part"
# None of them may be read as TeX, be left out of a legend, or break a line.
ODD = ["$\\frac{", "_hidden", "two\nlines", "a $b$ c", "x" * 500]


def pixels(figure) -> np.ndarray:
    """The figure as it is logged; whatever in it cannot be drawn raises."""
    return decode_png(figure_png(figure))


def texts(figure) -> list[str]:
    from matplotlib.text import Text

    return [text.get_text() for text in figure.findobj(Text)]


def guesses(rows: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Codes (rows,), and probabilities (rows, classes) that have something to do with them."""
    generator = np.random.default_rng(seed)
    codes = generator.integers(0, classes, rows)
    probabilities = generator.random((rows, classes)) + np.eye(classes)[codes]
    return codes, (probabilities / probabilities.sum(axis=1, keepdims=True)).astype(np.float32)


# Classes.


def test_the_matrix_shows_shares_of_the_true_class_as_colours_and_rows_as_numbers():
    codes, probabilities = guesses(40, 3)
    counts = confusion_counts(codes, probabilities.argmax(axis=1), 3)

    figure = confusion_matrix(counts, ["a", "b", "c"], ROWS)

    axes = figure.axes[0]
    np.testing.assert_allclose(axes.images[0].get_array(), counts / counts.sum(axis=1, keepdims=True))
    shown = {tuple(text.get_position()): text.get_text() for text in axes.texts}
    assert shown == {(x, y): str(counts[y, x]) for y in range(3) for x in range(3) if counts[y, x]}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]
    assert figure.get_suptitle() == f"Confusion matrix\n{ROWS}"


def test_a_class_that_no_row_is_of_has_an_empty_line_in_the_matrix():
    counts = confusion_counts(np.array([0, 0, 2]), np.array([0, 2, 2]), 4)

    shares = confusion_matrix(counts, range(4), ROWS).axes[0].images[0].get_array()

    assert shares.tolist() == [[0.5, 0, 0.5, 0], [0] * 4, [0, 0, 1, 0], [0] * 4]


@pytest.mark.parametrize(
    ("classes", "numbers", "names"), [(2, 2, 2), (30, 30, 30), (31, 0, 31), (60, 0, 60), (150, 0, 50)]
)
def test_the_matrix_leaves_out_what_could_not_be_read(classes, numbers, names):
    figure = confusion_matrix(np.eye(classes, dtype=np.int64), [f"class {code}" for code in range(classes)], ROWS)

    assert len(figure.axes[0].texts) == numbers
    assert len(figure.axes[0].get_xticks()) == names
    height, width, _ = pixels(figure).shape
    assert max(height, width) <= 1300


def test_the_curve_of_two_classes_is_that_of_scikit_learn():
    codes, probabilities = guesses(40, 2)
    truth, scores = codes[:, None], probabilities[:, 1:]

    left, right = roc(truth, scores, ["dog"], ROWS), precision_recall(truth, scores, ["dog"], ROWS)

    wrong, found, _ = roc_curve(codes, probabilities[:, 1])
    np.testing.assert_array_equal(left.axes[0].lines[1].get_xydata(), np.column_stack([wrong, found]))
    precision, recall, _ = precision_recall_curve(codes, probabilities[:, 1], drop_intermediate=True)
    np.testing.assert_array_equal(right.axes[0].lines[0].get_xydata(), np.column_stack([recall, precision]))
    assert left.axes[0].get_legend().get_texts()[0].get_text().endswith("  dog")


def test_each_of_a_few_classes_has_a_curve_against_the_rest():
    codes, probabilities = guesses(60, 4)

    curves = roc(codes[:, None] == np.arange(4), probabilities, "abcd", ROWS).axes[0].lines[1:]

    assert len(curves) == 4
    for code, curve in enumerate(curves):
        wrong, found, _ = roc_curve(codes == code, probabilities[:, code])
        np.testing.assert_array_equal(curve.get_xydata(), np.column_stack([wrong, found]))
        assert curve.get_label().endswith("abcd"[code])
    assert len({(curve.get_color(), curve.get_linestyle()) for curve in curves}) == 4


def test_many_classes_have_one_curve_together():
    codes, probabilities = guesses(200, 60)
    truth = codes[:, None] == np.arange(60)

    (curve,) = roc(truth, probabilities, range(60), ROWS).axes[0].lines[1:]

    wrong, found, _ = roc_curve(truth.ravel(), probabilities.ravel())
    np.testing.assert_array_equal(curve.get_xydata(), np.column_stack([wrong, found]))
    assert "all 60 (micro average)" in curve.get_label()


@pytest.mark.parametrize("draw", [roc, precision_recall])
def test_a_class_that_no_row_is_of_or_every_row_has_no_curve(draw):
    probabilities = guesses(5, 3)[1]
    truth = np.array([[1, 0, 0], [1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 1, 0]])

    labels = [text.get_text() for text in draw(truth, probabilities, "abc", ROWS).axes[0].get_legend().get_texts()]

    assert [label[-1] for label in labels] == ["b"]
    assert draw(np.ones((5, 1)), probabilities[:, :1], ["a"], ROWS) is None
    assert draw(np.zeros((1, 3)), probabilities[:1], "abc", ROWS) is None


def test_calibration_is_that_of_scikit_learn_with_the_rows_of_each_bin():
    generator = np.random.default_rng(0)
    probabilities = generator.random(300).astype(np.float32)
    happened = generator.random(300) < probabilities**2

    figure = calibration(happened, probabilities, "it is so", ROWS)

    share, mean = calibration_curve(happened, probabilities.astype(np.float64), n_bins=10)
    curve = figure.axes[0].lines[1]
    np.testing.assert_allclose(curve.get_xydata(), np.column_stack([mean, share]))
    counts = [bar.get_height() for bar in figure.axes[1].patches]
    assert counts == np.histogram(probabilities, np.linspace(0, 1, 11))[0].tolist()
    error = sum(np.abs(share - mean) * counts) / 300
    assert curve.get_label() == f"calibration error {error:.3f}"


@pytest.mark.parametrize("happened", [[1], [0], [1, 1], [0, 0]])
def test_what_always_happens_or_is_a_single_row_can_be_calibrated(happened):
    probabilities = np.full(len(happened), np.nextafter(np.float32(1), np.float32(2)))  # a softmax that was rounded up

    figure = calibration(np.array(happened), probabilities, "it is so", ROWS)

    assert figure.axes[0].lines[1].get_xydata().tolist() == [[1.0, happened[0]]]
    pixels(figure)


# Numbers.


def test_predicted_numbers_stand_over_the_true_ones_and_residuals_over_the_predicted_ones():
    generator = np.random.default_rng(0)
    actual, predicted = generator.random((30, 2)), generator.random((30, 2))

    over, left = predicted_against_actual(actual, predicted, "ab", ROWS), residuals(actual, predicted, "ab", ROWS)

    for output in range(2):
        points = over.axes[output].lines[0].get_xydata()
        np.testing.assert_array_equal(points, np.column_stack([actual[:, output], predicted[:, output]]))
        errors = actual[:, output] - predicted[:, output]
        points = left.axes[2 * output].lines[0].get_xydata()
        np.testing.assert_array_equal(points, np.column_stack([predicted[:, output], errors]))
        assert sum(bar.get_width() for bar in left.axes[2 * output + 1].patches) == 30
    assert over.axes[1].get_xlabel() == "actual b"


def test_of_many_outputs_the_first_are_drawn_and_the_title_says_so():
    numbers = np.random.default_rng(0).random((9, 6))

    over, left = predicted_against_actual(numbers, numbers, range(6), ROWS), residuals(numbers, numbers, range(6), ROWS)

    assert (len(over.axes), len(left.axes)) == (4, 8)
    assert over.get_suptitle().endswith("the first 4 of 6 outputs")


@pytest.mark.parametrize("rows", [1, 5])
def test_a_single_row_and_numbers_that_are_all_the_same_can_be_drawn(rows):
    same = np.full((rows, 1), 3.0)

    pixels(predicted_against_actual(same, same, [""], ROWS))
    pixels(residuals(same, same, [""], ROWS))


# Time.


def test_the_parts_of_a_metric_share_their_axes_and_the_best_epoch_is_marked():
    history = {"train/loss": [4.0, 2.0, 1.0], "val/loss": [5.0, None, 3.0], "val/accuracy": [0.1, float("nan"), 0.3]}

    loss, accuracy = learning_curves(history, 3).axes

    train, val, best = loss.lines
    assert train.get_xydata().tolist() == [[1, 4], [2, 2], [3, 1]]
    assert val.get_xydata().tolist() == [[1, 5], [3, 3]]
    assert list(best.get_xdata()) == [3, 3]
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["train", "val", "best epoch"]
    assert accuracy.lines[0].get_xydata().tolist() == [[1, 0.1], [3, 0.3]]
    assert accuracy.lines[0].get_color() == val.get_color()
    assert [axes.get_ylabel() for axes in (loss, accuracy)] == ["loss", "accuracy"]


def test_one_epoch_makes_no_curve():
    assert learning_curves({"train/loss": [1.0]}, 1) is None
    assert learning_curves({"val/loss": [1.0, None]}, 1) is None
    assert learning_curves({}, None) is None


def test_a_loss_that_falls_far_is_on_a_logarithmic_axis():
    far, near, below = ({"train/loss": values} for values in ([1.0, 1e-4], [1.0, 0.5], [1.0, -1.0]))

    assert [learning_curves(each, None).axes[0].get_yscale() for each in (far, near, below)] == [
        "log",
        "linear",
        "linear",
    ]


def test_of_many_metrics_the_first_are_drawn_and_the_title_says_so():
    figure = learning_curves({f"train/{name}": [1.0, 2.0] for name in range(20)}, None)

    assert len(figure.axes) == 12
    assert figure.get_suptitle() == "Learning curves, the first 12 of 20 metrics"


def test_the_curve_of_a_range_test_has_its_suggestion():
    without, with_one = learning_rate([0.1, 1.0], [2.0, 1.0], None), learning_rate([0.1, 1.0], [2.0, 1.0], 0.5)

    assert without.axes[0].lines[0].get_xydata().tolist() == [[0.1, 2.0], [1.0, 1.0]]
    assert (len(without.axes[0].lines), len(with_one.axes[0].lines)) == (1, 2)


# Features and samples.


def test_the_features_that_count_most_are_on_top():
    values = np.linspace(-1.05, 2, 31)

    axes = feature_importance(values, [f"column {place}" for place in range(31)], "weight").axes[0]

    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert len(labels) == 20
    assert labels[:3] == ["column 30", "column 29", "column 28"]
    assert [bar.get_width() for bar in axes.patches] == sorted(values, key=abs)[:-21:-1]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        *[((8, 8), True), ((28, 20, 1), True), ((8, 8, 3), True), ((8, 8, 4), True)],
        *[((8, 8, 2), False), ((3, 32, 32), False), ((2, 9), False), ((64,), False), ((4, 4, 4, 3), False)],
    ],
)
def test_images_are_known_by_their_shape(shape, expected):
    assert is_image(shape) is expected


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (np.array([[[0.0, 8.0], [4.0, 16.0]]]), [[0.0, 0.5], [0.25, 1.0]]),
        (np.full((1, 2, 2), 7.0), [[0.0, 0.0], [0.0, 0.0]]),
        (np.array([[[-1.0, 1.0], [0.0, 1.0]]])[..., None], [[0.0, 1.0], [0.5, 1.0]]),
        (np.full((1, 1, 1, 3), 51, dtype=np.uint8), [[[0.2, 0.2, 0.2]]]),
        (np.full((1, 1, 1, 3), 0.5), [[[0.5, 0.5, 0.5]]]),
    ],
    ids=["grey", "one grey", "scaled", "colours of bytes", "colours from 0 to 1"],
)
def test_images_of_any_numbers_can_be_seen(images, expected):
    figure = mistakes(images, ["a"], ["b"], None, ROWS)

    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), expected)
    assert figure.axes[0].get_title() == "a → b"
    pixels(figure)


def test_sixteen_mistakes_have_their_labels_and_probabilities():
    figure = mistakes(np.random.default_rng(0).random((16, 8, 8)), range(16), ["x"] * 16, [0.5] * 16, ROWS)

    assert [axes.get_title() for axes in figure.axes] == [f"{code} → x\n50%" for code in range(16)]


# Names.


def test_names_are_shown_as_they_are_on_one_line_and_not_too_long():
    shown = [plain(name) for name in ODD]

    assert shown == [r"\$\frac{", "_hidden", "two lines", r"a \$b\$ c", "x" * 23 + "…"]


def test_odd_names_can_be_drawn_everywhere():
    codes, probabilities = guesses(60, 5)
    truth, numbers = codes[:, None] == np.arange(5), probabilities[:, :3]
    figures = [
        confusion_matrix(confusion_counts(codes, codes, 5), ODD, ROWS),
        roc(truth, probabilities, ODD, ROWS),
        precision_recall(truth, probabilities, ODD, ROWS),
        calibration(codes == 0, probabilities[:, 0], f"it is {ODD[0]}", ROWS),
        predicted_against_actual(numbers, numbers, ODD[:3], ROWS),
        residuals(numbers, numbers, ODD[:3], ROWS),
        learning_curves({f"{name}/{name}": [1.0, 2.0] for name in ODD}, 1),
        feature_importance(np.arange(5.0), ODD, "weight"),
        mistakes(np.zeros((5, 8, 8)), ODD, ODD, None, ROWS),
    ]

    for figure in figures:
        pixels(figure)
        assert any(r"\$\frac{" in text for text in texts(figure))
    assert sum("_hidden" in text.get_text() for text in figures[1].axes[0].get_legend().get_texts()) == 1


def test_drawing_leaves_pyplot_and_the_settings_of_the_caller_alone():
    import matplotlib as mpl
    from matplotlib import pyplot

    before = dict(mpl.rcParams)

    pixels(roc(np.array([[0], [1]]), np.array([[0.1], [0.9]]), ["a"], ROWS))

    assert pyplot.get_fignums() == []
    assert dict(mpl.rcParams) == before
