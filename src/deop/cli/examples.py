"""The options about examples that several commands share, and the banks that they name."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from deop.cli.options import option
from deop.errors import SettingError

if TYPE_CHECKING:
    from deop.bank import Bank
    from deop.surface import ModelSurface

NAMES = "Names"
"""Title of a panel."""


def example_option(panel: str, what: str) -> Any:
    """``--example``, whose help begins with ``what`` an example is."""
    return option(
        "--example",
        metavar="PHOTO:MASK=NAME",
        panel=panel,
        help=f"{what}: photo.jpg:mask.png=cup. MASK may also be a box, left,top,right,bottom, or a click, x,y, in "
        "pixels; -NAME marks what does not have the name. May be repeated.",
    )


BankFile = Annotated[
    Path | None,
    option(
        "--bank", metavar="BANK", panel=NAMES,
        help="Score names by the examples in this file, which `deop learn` writes, and by words together. "
        "Without --classes, the names of the examples are asked.",
    ),
]  # fmt: skip
BankWeight = Annotated[
    float | None,
    option(
        "--bank-weight", metavar="NUMBER", panel=NAMES, min=0, max=1,
        help="How much examples count: 0 words alone, 1 examples alone where there are some. Default: 0.5, as fitted "
        "on the examples.",
    ),
]  # fmt: skip
Example = Annotated[list[str] | None, example_option(NAMES, "An example of a name")]


def check_examples(bank: Path | None, weight: float | None, examples: list[str] | None) -> None:
    """Refuse a missing bank, malformed examples, and a weight without examples, before a model is loaded.

    Raises:
        SettingError, CheckpointError, ProposalError: naming the option.
    """
    if weight is not None and bank is None and not examples:
        raise SettingError("--bank-weight has no effect: add --bank BANK or --example PHOTO:MASK=NAME")
    if bank is not None:
        from deop.bank import load_bank

        load_bank(bank)
    if examples:
        from deop.bank.sources import parse_examples

        parse_examples(examples)


def learned_names(bank: Path | None, examples: list[str] | None, background: str = "") -> list[str]:
    """The names that a bank and the examples of a command line have; empty without any.

    Raises:
        VocabularyError: they only say what does not have a name.
        SettingError, CheckpointError, ProposalError: as ``check_examples``.
    """
    if bank is None and not examples:
        return []
    from deop.bank import load_bank
    from deop.bank.bank import names_to_ask
    from deop.bank.sources import parse_examples

    names = [] if bank is None else list(load_bank(bank).named)
    names += [name for marked in parse_examples(examples or []) for name in marked.names]
    return names_to_ask(names, background)


def bank_of(network: "ModelSurface", bank: Path | None, examples: list[str] | None) -> "Bank | None":
    """The examples of a command line: of a file, and of photos, which are learned now; None without any."""
    if bank is None and not examples:
        return None
    from deop.bank import Bank, load_bank
    from deop.bank.learning import learn_photos
    from deop.bank.space import check_bank

    banks = []
    if bank is not None:
        banks.append(load_bank(bank))
        check_bank(network, banks[0])
    if examples:
        from deop.bank.sources import parse_examples

        marked = parse_examples(examples)
        banks.append(learn_photos(network, marked, len(marked)))
    return Bank.merged(banks)


def bank_options(
    network: "ModelSurface", bank: Path | None, weight: float | None, examples: list[str] | None
) -> dict[str, Any]:
    """The arguments of ``ModelSurface.vocabulary`` about examples."""
    examples_of = bank_of(network, bank, examples)
    return {} if examples_of is None else {"bank": examples_of, "bank_weight": weight}
