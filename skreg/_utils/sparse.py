"""Sparse matrices: their rows become dense as a batch asks for them, never all."""

import numpy as np
import torch
from scipy.sparse import coo_matrix, csr_matrix, issparse

__all__ = ["as_rows", "dense_rows", "from_torch", "is_sparse", "sparse_parts"]


def is_sparse(X) -> bool:
    """Return whether X is a sparse matrix or array of SciPy."""
    return issparse(X)


def as_rows(X) -> csr_matrix:
    """Return a matrix in CSR format as a `csr_matrix` that shares its memory.

    A single row of a `csr_array` is one-dimensional, which not all code knows. What is
    unsorted, or holds duplicates, is copied: SciPy would bring it into order in place
    as soon as somebody asks for its minimum.
    """
    rows = csr_matrix((X.data, X.indices, X.indptr), shape=X.shape)
    if not rows.has_canonical_format:
        rows = rows.copy()
        rows.sum_duplicates()
    return rows


def dense_rows(X: csr_matrix, key) -> np.ndarray:
    """Return the rows that a slice or an array of integers picks, in C order."""
    return X[key].toarray()


def sparse_parts(X: csr_matrix) -> tuple[np.ndarray, ...]:
    """Return the arrays that a matrix consists of."""
    return X.data, X.indices, X.indptr


def from_torch(X: torch.Tensor):
    """Return a sparse tensor with two axes as a matrix of SciPy; others as ndarray."""
    if X.ndim != 2 or X.layout not in (torch.sparse_coo, torch.sparse_csr):
        return X.to_dense().numpy()
    X = X.to_sparse_coo().coalesce()
    rows, columns = X.indices().numpy()
    return coo_matrix((X.values().numpy(), (rows, columns)), shape=tuple(X.shape))
