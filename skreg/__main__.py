"""The command line: ``python -m skreg`` runs a study and writes a report."""

import argparse
import sys
from pathlib import Path

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
    try:
        run(options)
    except KeyboardInterrupt:
        print("skreg: interrupted; no report was written.", file=sys.stderr)
        return 130
    except (OSError, ValueError) as error:
        print(f"skreg: error: {error}", file=sys.stderr)
        return 2
    return 0


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="skreg",
        description="Study L1 and L2 penalties: fit the same small net without a "
        "penalty, with either and with both, on few images and with several seeds. "
        "Print a table and write a report with pictures.",
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
        default=5,
        metavar="N",
        help="number of repetitions, for the error bars (default: %(default)s)",
    )
    parser.add_argument(
        "--epochs",
        type=positive,
        default=150,
        metavar="N",
        help="passes over the training images (default: %(default)s)",
    )
    parser.add_argument(
        "--train-sizes",
        type=positive,
        nargs="+",
        default=[30, 100],
        metavar="N",
        help="numbers of training images (default: 30 100)",
    )
    parser.add_argument(
        "--val-size",
        type=positive,
        default=100,
        metavar="N",
        help="number of validation images (default: %(default)s)",
    )
    return parser


def positive(text: str) -> int:
    """Read a positive integer, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return int(text)


def run(options: argparse.Namespace) -> None:
    """Run the study and write its report."""
    check_output(options.output)
    # Imported here: --help, and a bad option, need not wait for torch.
    import matplotlib as mpl

    mpl.use("Agg")
    from tqdm import tqdm

    from skreg.studies import l1_l2
    from skreg.studies.report import readable_table, write_report

    data = load_data(options.data)
    result = l1_l2.run(
        data,
        train_sizes=list(dict.fromkeys(options.train_sizes)),
        n_valid=options.val_size,
        seeds=range(options.seeds),
        epochs=options.epochs,
        device=options.device,
        name=Path(options.data).name,
        progress=lambda fits: tqdm(fits, desc=l1_l2.TITLE, unit="fit"),
    )
    report = write_report({l1_l2: result}, options.output)
    print(f"\n{l1_l2.TITLE} on {options.data}, mean ± standard error over seeds\n")
    print(readable_table(l1_l2.table(result)).reset_index().to_markdown(index=False))
    print("\n" + "\n".join(l1_l2.findings(result)))
    print(f"\nReport with pictures: {report.resolve()}")


def check_output(output: Path) -> None:
    """Refuse a folder that cannot be written to, before any work is done."""
    if output.exists() and not output.is_dir():
        raise ValueError(f"--output {output} is a file; name a folder.")
    output.mkdir(parents=True, exist_ok=True)


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
    return load_image_folder(name)


if __name__ == "__main__":
    sys.exit(main())
