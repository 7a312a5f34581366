"""The description of the parameters that the classifier and the regressor share."""

from textwrap import fill

from skreg.estimators._regularizers import PARAMETERS

MODULE = """\
module : nn.Module class, instance or callable, default=None
        The net. None builds an :class:`~skreg.modules.MLP`. A class is called with
        ``module__*``; its arguments `in_features`, `out_features` and
        `hidden_layer_sizes`, if it has them, are filled in from the data. An instance
        is copied, with its weights, at the start of ``fit``."""

SHARED = """\
hidden_layer_sizes : int or sequence of int, default=(100,)
        Width of each hidden layer, for modules that take it.
    {{regularizers}}
    regularizers : list of Regularizer, default=None
        Your own ways to regularise, besides those that have parameters here; see
        :class:`skreg.regularizers.Regularizer`. Their parameters are
        ``regularizers__<name>__*``, where the name is that of the class, unless a pair
        (name, regularizer) gives another; of equal classes the second is ``<class>_2``.
        They win over what the objects hold. A fit starts with copies of the objects,
        also with `warm_start`.
    dropout : float, default=None
        Sets the probability of every dropout layer of the module, in [0, 1]. None
        leaves them as they are.
    optimizer : Optimizer class, default=torch.optim.Adam
        Its options are ``optimizer__*``, e.g. ``optimizer__momentum=0.9`` for SGD.
    lr : float, default=0.001
        Learning rate.
    max_epochs : int, default=100
        Passes over the training data.
    batch_size : int, default=64
        Samples per step; -1 for all of them. If one sample is left over, and the module
        has batch normalisation that cannot be trained on it alone, it joins the batch
        before.
    shuffle : bool, default=True
        Draw a new order of the samples for each epoch, unless one batch holds all.
        What early stopping holds out is the choice of `holdout`.
    early_stopping : bool, default=False
        Stop when what `monitor` names has had no new best for more than `patience`
        epochs, and restore the weights of the best epoch: the last whose loss is at
        most 2 % above the lowest, or the first with the highest score
        (``callbacks__early_stopping__tol`` sets another share). Validation data are
        ``X_val`` and ``y_val`` of ``fit``, or what `train_split` makes, or else
        `validation_fraction` of the training data. Data from which nothing can be held
        out (too few, or a class with one sample) train to the end, with a warning.
    patience : int, default=20
        Epochs without a new best that early stopping tolerates.
    monitor : str or callable, default="valid_loss"
        What early stopping looks at: a key of the history, such as "valid_loss" or
        "valid_acc"; or else a scorer of scikit-learn ("f1_macro", "roc_auc", "r2", or
        a callable ``(net, X, y)``), evaluated on the validation data after each epoch.
        See :class:`~skreg.callbacks.EarlyStopping`.
    validation_fraction : float, default=0.1
        Share of the training data that early stopping holds out, in (0, 1).
    holdout : {{"random", "last"}}, default="random"
        Which part early stopping holds out: samples drawn at random (by class, in a
        classifier), also with ``shuffle=False``; or the last ones, as samples in the
        order of time need it. With ``groups``, whole groups, or the last groups.
    train_split : callable, default=None
        As in skorch, e.g. ``ValidSplit(5)``; None trains on all data. Only the first
        split of a cross-validation generator is used; samples in neither part are
        warned of.
    callbacks : list or tuple of skorch callbacks, default=None
        Added to those that write the history, keep an eye on divergence and print.
        In all that ``fit`` calls, targets and predictions are those of the user:
        callbacks, scorers and `train_split` see the {own} of `y`. Only batches, and
        with them ``get_loss``, hold what the module trains on: {encoded}.
    random_state : int, RandomState instance or None, default=None
        Decides initial weights, shuffling, dropout, augmentation and the validation
        split; an integer gives the weights of ``torch.manual_seed(random_state)`` and
        ``module()``. None takes fresh entropy. Global random states are left alone.
    warm_start : bool, default=False
        Go on with the weights of the last ``fit``.
    device : str or torch.device, default="auto"
        Where to train; "auto" is "cuda" if there is one, else "cpu".
    dtype : {{"auto", "float32", "float64"}}, default="auto"
        Of the weights and the data; "auto" trains in float64 if X is float64 and `amp`
        None, else in float32. Integers become such numbers, unless the module holds an
        ``nn.Embedding`` or takes nothing but integers; an ``nn.Embedding`` gets whole
        numbers of floating point as integers, too.
    amp : {{"bfloat16", "float16"}}, default=None
        Mixed precision: the module computes under ``torch.autocast``; weights, losses,
        penalties and predictions stay float32. With "float16" losses are scaled for
        ``backward``, and steps whose gradients overflow are left out.
    iterator_train, iterator_valid : class, default=None
        None takes batches of arrays straight from memory and uses torch's DataLoader
        for Datasets; options such as ``iterator_train__num_workers`` are passed on.
    dataset, predict_nonlinearity, compile, use_caching, torch_load_kwargs
        As in skorch.
    verbose : int, default=0
        1 prints a line per epoch.
    **kwargs
        skorch's ``module__*``, ``criterion__*``, ``optimizer__*``, ``callbacks__*``,
        ``iterator_train__*``, ``iterator_valid__*``, ``dataset__*``, ``compile__*``."""


def _entry(name, parameter) -> str:
    text = fill(parameter.doc, 88, initial_indent=8 * " ", subsequent_indent=8 * " ")
    return f"{name} : {parameter.type}, default={parameter.default!r}\n{text}"


# Braces of the types are doubled for `format`.
_REGULARIZERS = "\n    ".join(_entry(*item) for item in PARAMETERS.items())
_REGULARIZERS = _REGULARIZERS.replace("{", "{{").replace("}", "}}")
SHARED = SHARED.replace("{{regularizers}}", _REGULARIZERS)

ATTRIBUTES = """\
module_ : nn.Module
        The fitted net.
    history : skorch.history.History
        One dict per epoch: ``epoch``, ``train_loss`` (the objective, penalty
        included), ``train_penalty``, ``param_norm`` (Frobenius norm of all parameters
        after the epoch), ``param_norms`` (the norm of each, by name), ``sparsity``
        (share of exact zeros, with `proximal` or `lambda_group`), ``dur``
        (seconds){history}.
    feature_importances_ : ndarray of shape (n_inputs,)
        L2 norm of the weights of the first layer that each input goes through; for
        modules whose first layer is linear or a convolution.
    n_active_inputs_ : int
        Number of inputs whose importance is not zero.
    n_active_units_ : list of int
        Number of units of each hidden layer that some weight goes into.
    sparsity_ : float
        Share of exact zeros among the weights that proximal steps are taken on.
    best_epoch_ : int
        With early stopping: the epoch, counted from 1, whose weights are kept. It is
        the last one if no validation data could be held out.
    device_ : torch.device
        Where the net was trained.
    training_path_ : {{"stack", "backprop", "autograd", "hooks"}}
        What trained the net, from fast to slow: a stack of nets under
        ``joblib.parallel_config("skreg")``, backpropagation written out, autograd
        without a call of hooks for each batch, or skorch's loop with all of them. It
        is that of the last epoch if a callback has changed the net.
    training_path_reasons_ : dict of str to str
        Why it was none of the faster paths, by their names.
    input_shape_ : tuple of int
        Shape of one sample.
    input_range_ : (float, float)
        The smallest and the largest number in the training data, within which attacks
        stay; ``partial_fit`` and warm starts extend it. Of a Dataset it is the range of
        the batches that training has seen; there is none for a dict of inputs.
    n_features_in_ : int
        Length of the second axis of X.
    feature_names_in_ : ndarray of str
        Column names, if X was a DataFrame."""
