"""The command line: ``python -m skreg`` runs studies and writes a report."""

import argparse
import sys
import tempfile
import textwrap
import traceback
import warnings
from pathlib import Path

from skreg.studies import NAMES, load_study

DATA = ("digits", "animal-faces")


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status.

    Parameters
    ----------
    argv : list of str, default=None
        Arguments; None takes those of the process.
    """
    parser = make_parser()
    options = parser.parse_args(argv)
    if options.list:
        print_list()
        return 0
    try:
        return run(options)
    except KeyboardInterrupt:
        print(
            "skreg: interrupted; the studies that were finished are kept in "
            f"{options.output}, and the same command with --resume goes on.",
            file=sys.stderr,
        )
        return 130
    except (OSError, ValueError) as error:
        print(f"skreg: error: {error}", file=sys.stderr)
        return 2


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="skreg",
        description="Study what regularisation does to nets on few images, with "
        "several seeds. Print tables and write a report with pictures.",
        epilog="Studies: " + ", ".join(NAMES) + ".",
    )
    parser.add_argument(
        "studies",
        nargs="*",
        type=study_name,
        metavar="STUDY",
        help="the studies to run, or all (default: l1-l2)",
    )
    parser.add_argument(
        "--list",
        action="store_true",
        help="list the studies and what they ask, and run none",
    )
    parser.add_argument(
        "--data",
        default="digits",
        metavar="digits|animal-faces|PATH",
        help="images: the digits that come with scikit-learn (default), animal faces "
        "(downloaded once, about 17 MB), or a folder or .zip with a folder per class",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("skreg-report"),
        metavar="DIR",
        help="folder for report.html, figures and curves (default: %(default)s)",
    )
    parser.add_argument(
        "--device",
        default="auto",
        help="auto (default: cuda if there is one, else cpu), cpu, cuda, cuda:1, ...",
    )
    parser.add_argument(
        "--seeds",
        type=positive,
        metavar="N",
        help="number of repetitions, for the error bars (default: each study's own)",
    )
    parser.add_argument(
        "--epochs",
        type=positive,
        metavar="N",
        help="passes over the training images (default: each study's own)",
    )
    parser.add_argument(
        "--train-sizes",
        type=positive,
        nargs="+",
        metavar="N",
        help="numbers of training images; studies that take one number take the "
        "largest (default: each study's own, less where the data set is small)",
    )
    parser.add_argument(
        "--val-size",
        type=positive,
        metavar="N",
        help="number of validation images (default: each study's own)",
    )
    parser.add_argument(
        "--full",
        action="store_true",
        help="numbers of images and epochs as in the course, which takes far longer",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="keep the finished studies that an earlier run with the same settings "
        "left in the output folder",
    )
    return parser


def positive(text: str) -> int:
    """Read a positive integer, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return int(text)


def study_name(text: str) -> str:
    """Read the name of a study, for argparse."""
    if text not in ("all", *NAMES):
        raise argparse.ArgumentTypeError(
            f"there is no study {text!r}; choose from all, {', '.join(NAMES)}"
        )
    return text


def run(options: argparse.Namespace) -> int:
    """Run the studies and write their report; return the exit status."""
    check_output(options.output)
    # Imported here: --help, and a bad option, need not wait for torch.
    import matplotlib as mpl

    mpl.use("Agg")
    from tqdm import tqdm

    from skreg.studies.common.session import run_studies

    # Samples of few images may have as many classes; that they are classes is known.
    warnings.filterwarnings("ignore", message="The number of unique classes is greater")
    n_failed = 0
    for outcome in run_studies(
        chosen_names(options.studies),
        load_data(options.data),
        options.output,
        data_name=Path(options.data).resolve().name,
        device=options.device,
        seeds=options.seeds,
        epochs=options.epochs,
        train_sizes=options.train_sizes,
        n_valid=options.val_size,
        full=options.full,
        resume=options.resume,
        progress=lambda title: lambda seeds: tqdm(seeds, desc=title, unit="seed"),
    ):
        if outcome.result is None:
            n_failed += 1
            if not isinstance(outcome.error, ValueError):
                traceback.print_exception(outcome.error)
            print(f"skreg: error: {outcome.name}: {outcome.note}", file=sys.stderr)
        else:
            print_outcome(outcome)
    print(f"\nReport with pictures: {(options.output / 'report.html').resolve()}")
    return 2 if n_failed else 0


def print_list() -> None:
    """Print the name of each study, and what it asks."""
    for name in NAMES:
        question = textwrap.fill(load_study(name).QUESTION, 84)
        print(f"{name}\n{textwrap.indent(question, '    ')}")


def print_outcome(outcome) -> None:
    """Print the table and the findings of a study."""
    from skreg.studies.common.report import readable_table

    study, result = outcome.study, outcome.result
    if outcome.kept:
        print(f"\n{outcome.name}: kept from an earlier run")
    elif outcome.note:
        print(f"\n{outcome.name}: run, since {outcome.note}")
    data = result["settings"]["data"]
    print(f"\n{study.TITLE} on {data}, mean ± standard error over seeds\n")
    print(readable_table(study.table(result)).reset_index().to_markdown(index=False))
    print("\n" + "\n".join(study.findings(result)), flush=True)


def chosen_names(studies: list[str]) -> list[str]:
    """Return the names of the studies to run, each once, in the order of the report."""
    wanted = NAMES if "all" in studies else studies or ["l1-l2"]
    return [name for name in NAMES if name in wanted]


def check_output(output: Path) -> None:
    """Refuse a folder that cannot be written to, before any work is done."""
    if output.exists() and not output.is_dir():
        raise ValueError(f"--output {output} is a file; name a folder.")
    try:
        output.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=output).close()
    except OSError as error:
        raise ValueError(
            f"--output {output} cannot be written to ({error.strerror}); name another "
            "folder."
        ) from error


def load_data(name: str):
    """Return the images that ``--data`` names."""
    from skreg.datasets import (
        fetch_animal_faces,
        load_digit_images,
        load_image_folder,
    )

    if name == "digits":
        return load_digit_images()
    if name == "animal-faces":
        return fetch_animal_faces()
    if not Path(name).exists():
        raise ValueError(
            f"--data {name}: there is no such file or folder; use "
            f"{', '.join(DATA)}, or the path of a folder or .zip with a folder per "
            "class."
        )
    data = load_image_folder(name, on_error="warn")
    if len(data.target_names) < 2:
        raise ValueError(
            f"--data {name} has images of 1 class, {data.target_names[0]!r}; a folder "
            "for each of at least 2 classes is needed."
        )
    return data


if __name__ == "__main__":
    sys.exit(main())
