"""What all transformers share: validation, tags, and what set_output wraps."""

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import TransformerTags
from sklearn.utils.validation import check_is_fitted, validate_data

from skreg.transforms._layout import check_images

__all__ = ["FLOATS", "ImageTransformer"]

# What goes through as it is; everything else becomes the first of them.
FLOATS = [np.float32, np.float64]


class _Rows(TransformerMixin):
    """What scikit-learn wraps, as ``set_output`` asks: rows, never images.

    A DataFrame cannot hold images, and scikit-learn wraps whatever a ``transform``
    returns that is written in a TransformerMixin. The one of `_Images` is not.
    """

    def transform(self, X, rows):
        return rows


class _Images:
    _dtype = FLOATS
    _stateless = True

    def fit(self, X, y=None):
        """Check the parameters and X, and learn from X what there is to learn.

        Parameters
        ----------
        X : array-like of shape (n, features), (n, height, width), \
                (n, channels, height, width) or (n, height, width, channels)
            Finite numbers.
        y : None
            Ignored.

        Returns
        -------
        self
        """
        X = self._validate(X, reset=True)
        self.input_shape_ = X.shape[1:]
        self._learn(X)
        # One sample tells the shape, and raises here what all would raise later.
        self.output_shape_ = self._transform(X[:1]).shape[1:]
        return self

    def transform(self, X):
        """Return X transformed; X itself is never changed.

        Parameters
        ----------
        X : array-like of shape (n, ...)
            Samples of the shape that ``fit`` saw.

        Returns
        -------
        ndarray of shape (n, ...), dtype float32 or float64
            float32 and float64 stay what they are; integers and all else become
            float32. Rows come as a DataFrame if ``set_output`` asks for one; images
            are always an array. It may be a view of X if there is nothing to change.
        """
        check_is_fitted(self)
        transformed = self._transform(self._validate(X, reset=False))
        if transformed.ndim == 2:
            # That of `_Rows`, which follows in the order of classes.
            return super().transform(X, transformed)  # pyright: ignore[reportAttributeAccessIssue]
        return transformed

    def fit_transform(self, X, y=None):
        """Return what ``fit(X, y).transform(X)`` returns.

        Parameters
        ----------
        X : array-like of shape (n, ...)
            As for ``fit``.
        y : None
            Ignored.

        Returns
        -------
        ndarray of shape (n, ...), dtype float32 or float64
            As of ``transform``.
        """
        return self.fit(X, y).transform(X)

    def _validate(self, X, reset: bool) -> np.ndarray:
        X = np.asarray(
            validate_data(self, X, reset=reset, dtype=self._dtype, allow_nd=True)
        )
        check_images(X)
        if not reset and X.shape[1:] != getattr(self, "input_shape_", X.shape[1:]):
            raise ValueError(
                f"X has samples of shape {X.shape[1:]}, but {type(self).__name__} was "
                f"fitted on samples of shape {self.input_shape_}; reshape or resize X."
            )
        return X

    def _learn(self, X: np.ndarray) -> None:
        pass

    def _transform(self, X: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    @property
    def _n_features_out(self) -> int:
        # Features are what axis 1 counts, as scikit-learn does for n_features_in_.
        return self.output_shape_[0]


class ImageTransformer(_Images, _Rows, BaseEstimator):
    """Base class of the transformers.

    A subclass says in ``_transform`` what it makes of validated images, and in
    ``_learn`` what it learns from them.
    """

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.transformer_tags = TransformerTags(preserves_dtype=["float64", "float32"])
        tags.requires_fit = not self._stateless
        return tags
