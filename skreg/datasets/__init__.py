"""Real and made data, with scikit-learn's ``load_``, ``fetch_`` and ``make_`` manners.

Images are float32 in [0, 1], shaped ``(n, channels, height, width)``; targets are
int64 indices into ``target_names``. Loaders return a :class:`sklearn.utils.Bunch`, or
``(data, target)`` with ``return_X_y=True``.
"""

from skreg.datasets._digits import load_digit_images
from skreg.datasets._faces import fetch_animal_faces
from skreg.datasets._folder import load_image_folder
from skreg.datasets._toy import make_noisy_line, randomize_labels

__all__ = [
    "fetch_animal_faces",
    "load_digit_images",
    "load_image_folder",
    "make_noisy_line",
    "randomize_labels",
]
