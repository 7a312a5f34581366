"""Parameters of a net: those of the signature, and those with a prefix."""

import inspect
from functools import cache

from skorch.utils import params_for

from skreg._utils.held_data import (
    clone_of_callbacks,
    copy_sharing_data,
    holds_data,
)
from skreg.estimators._lazy import copied, holds_lazy_buffers
from skreg.estimators._numbers import plain_options
from skreg.estimators._regularizers import (
    PREFIXES,
    params_of,
)

_PLAIN = bool, int, float, str, type(None)


class ParameterAccess:
    """Mixin: gets, sets and clones the parameters of a net.

    What comes as ``module__x`` is no attribute, but one of ``_kwargs``.
    """

    @classmethod
    @cache
    def _explicit_params(cls) -> list[str]:
        parameters = inspect.signature(cls).parameters.values()
        return [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]

    def _get_param_names(self):
        return self._explicit_params() + sorted(self._params_to_validate)

    @property
    def _params_to_validate(self) -> set[str]:
        """Names of what came in as ``**kwargs``: ``module__*``, and typing errors."""
        return set(self._extra_params)

    @property
    def _extra_params(self) -> dict:
        return vars(self).get("_kwargs", {})

    def _set_extra_param(self, name, value) -> None:
        # Not among the attributes: an estimator of scikit-learn's holds no other than
        # the parameters in its signature until it is fitted.
        vars(self)["_kwargs"] = {**self._extra_params, name: value}  # not a copy's

    def _get_params_for(self, prefix):
        if not vars(self).get("_kwargs"):  # as for most, and skorch asks 24 times a fit
            return {}
        given = params_for(prefix, self._extra_params)
        owners = {*self._modules, *self._criteria, *PREFIXES, "dataset"}
        return plain_options(given, tensors=prefix.split("__")[0] not in owners)

    def __getattr__(self, name):
        extra = vars(self).get("_kwargs")
        if extra and name in extra:
            return extra[name]
        return self.__getattribute__(name)  # raises what a property has raised

    def __setattr__(self, name, value):
        if "__" in name and not name.startswith("_"):
            self._set_extra_param(name, value)
        elif isinstance(value, _PLAIN):  # no component that skorch would register
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def __delattr__(self, name):
        if name in self._extra_params:
            kept = {k: v for k, v in self._extra_params.items() if k != name}
            vars(self)["_kwargs"] = kept
        else:
            super().__delattr__(name)

    def get_params(self, deep=True):
        """Return the parameters; with `deep`, also those of the callbacks.

        Parameters
        ----------
        deep : bool, default=True

        Returns
        -------
        dict
        """
        # Not deep, because some transforms of torchvision, which may be `augment`, have
        # a get_params that means something else.
        params = super().get_params(deep=False)
        if deep:
            params |= self._get_params_callbacks(deep=True)
            params |= params_of(self.regularizers)
        # skorch puts its default callbacks over what the user has set in their place.
        return params | {name: getattr(self, name) for name in self._params_to_validate}

    def __sklearn_clone__(self):
        # Some of torchvision's transforms have a get_params that is none of
        # scikit-learn's kind, and cannot be cloned as its estimators are. What holds
        # data would be copied with them.
        values = {name: getattr(self, name) for name in self._get_param_names()}
        own = {"augment": values["augment"]}
        own |= {
            name: value
            for name, value in values.items()
            if name not in ("module", "criterion") and holds_data(value)
        }
        module = values["module"]
        if holds_lazy_buffers(module):
            own["module"] = module
        twin = type(self).__new__(type(self))
        vars(twin).update(vars(self), _kwargs=dict(self._extra_params))
        for name in own:
            setattr(twin, name, None)
        cloned = super(ParameterAccess, twin).__sklearn_clone__()
        for name, value in own.items():
            is_callback = name.split("__")[0] == "callbacks"
            clone_parameter = clone_of_callbacks if is_callback else copy_sharing_data
            if name == "module":
                clone_parameter = copied
            setattr(cloned, name, clone_parameter(value))
        return cloned
