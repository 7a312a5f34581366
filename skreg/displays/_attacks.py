"""Clean images above attacked ones."""

import numpy as np

from skreg.displays._images import ImageGridDisplay, _as_pixels, _channels_last
from skreg.displays.common import shorten


class AttackedImagesDisplay(ImageGridDisplay):
    """Images, what an attack made of them, and what it changed: a column each.

    The change is drawn on grey, which stands for none, and enlarged by the factor that
    is written beside it.

    Parameters
    ----------
    clean, attacked : array-like of the shapes of `ImageGridDisplay`
        As many images of one shape in both.
    clean_titles, attacked_titles : sequence of str of length n, default=None
        Text above each image, for example what a net takes it for.
    value_range : (float, float), default=None
        As for :class:`ImageGridDisplay`.

    Attributes
    ----------
    factor_ : float
        By how much the changes are enlarged; the largest one is black or white.
    ax_, axes_, figure_, image_artists_
        As for :class:`ImageGridDisplay`.

    Raises
    ------
    ValueError
        If shapes or lengths do not fit, or a value is outside the range.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> import matplotlib.pyplot as plt
    >>> import numpy as np
    >>> from skreg.displays import AttackedImagesDisplay
    >>> clean = np.random.default_rng(0).random((4, 8, 8))
    >>> attacked = np.clip(clean + 0.05, 0, 1)
    >>> display = AttackedImagesDisplay(clean=clean, attacked=attacked).plot()
    >>> display.axes_.shape, round(display.factor_)
    ((3, 4), 10)
    >>> plt.close(display.figure_)
    """

    def __init__(
        self,
        *,
        clean,
        attacked,
        clean_titles=None,
        attacked_titles=None,
        value_range=None,
    ):
        pair = [_unit_pixels(images, value_range) for images in (clean, attacked)]
        clean, attacked = pair
        n = len(clean)
        if clean.shape != attacked.shape:
            raise ValueError(
                "clean and attacked must have the same shape; got "
                f"{clean.shape} and {attacked.shape}."
            )
        change = attacked - clean
        largest = np.abs(change).max()
        self.factor_ = float(0.5 / largest) if largest > 0 else 1.0
        rows = [
            "clean",
            "attacked",
            f"change \N{MULTIPLICATION SIGN} {self.factor_:.3g}",
        ]
        texts = [*_texts(clean_titles, "clean_titles", n)]
        texts += [*_texts(attacked_titles, "attacked_titles", n), *[""] * n]
        super().__init__(
            images=np.concatenate([*pair, np.clip(0.5 + self.factor_ * change, 0, 1)]),
            labels=np.repeat(rows, n),
            titles=texts if any(texts) else None,
        )
        self.n_columns = n

    @classmethod
    def from_estimator(
        cls,
        net,
        X,
        y,
        *,
        eps,
        attack="pgd",
        n_images=6,
        class_names=None,
        value_range=None,
        ax=None,
        **options,
    ):
        """Attack a fitted classifier on images that it gets right, and draw them.

        Parameters
        ----------
        net : RegularizedNetClassifier
            Fitted.
        X : array-like of the shapes of `ImageGridDisplay`
            Images. Of those that the net gets right, the first are drawn.
        y : array-like of shape (n,)
            Their classes.
        eps : float
            Size of the attack, in units of X.
        attack : {"pgd", "fgsm"}, default="pgd"
        n_images : int, default=6
        class_names : sequence or mapping, default=None
            The name of each class; None writes the class itself.
        value_range, ax
            As in :class:`ImageGridDisplay` and its ``plot``. Attacked images stay in
            `value_range` unless `bounds` says otherwise.
        **options
            Other parameters of the attack; see :mod:`skreg.robustness`.

        Returns
        -------
        AttackedImagesDisplay
            The display, drawn; above each image stands what the net takes it for.

        Raises
        ------
        ValueError
            If the net gets no image right, or a parameter is none of what is said here.
        """
        from skreg import robustness  # torch is loaded only here

        attacks = {"pgd": robustness.pgd, "fgsm": robustness.fgsm}
        if attack not in attacks:
            raise ValueError(f"attack must be one of {(*attacks,)}; got {attack!r}.")
        X, y = np.asarray(X), np.asarray(y)
        right = np.flatnonzero(net.predict(X) == y)[:n_images]
        if not len(right):
            raise ValueError(
                f"The net gets none of the {len(X)} images right; pass others, or a "
                "net that has learnt more."
            )
        if value_range is not None:
            options = {"bounds": value_range} | options
        attacked = attacks[attack](net, X[right], y[right], eps=eps, **options)
        names = {} if class_names is None else class_names
        clean_titles, attacked_titles = (
            [str(_name(names, label)) for label in labels]
            for labels in (y[right], net.predict(attacked))
        )
        display = cls(
            clean=X[right],
            attacked=attacked,
            clean_titles=clean_titles,
            attacked_titles=attacked_titles,
            value_range=value_range,
        )
        return display.plot(ax)


def _unit_pixels(images, value_range) -> np.ndarray:
    pixels = _as_pixels(_channels_last(images), value_range)
    return pixels / 255 if pixels.dtype == np.uint8 else pixels


def _texts(titles, parameter: str, n: int) -> list[str]:
    if titles is None:
        return [""] * n
    if isinstance(titles, str) or len(titles) != n:
        raise ValueError(
            f"{parameter} must hold one text for each of {n} images; got "
            f"{shorten(titles)}."
        )
    return [str(title) for title in titles]


def _name(names, label):
    if hasattr(names, "get"):
        return names.get(label, label)
    return names[label]
