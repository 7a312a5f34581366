"""How fits that are to be done at the same time are done."""

__all__ = ["train_together"]


def train_together(jobs: list, *, verbose: int = 0) -> None:
    """Train the nets of all jobs.

    Parameters
    ----------
    jobs : list of Job
    verbose : int, default=0
    """
    for job in jobs:
        job.train_alone()
