"""The banks that a worker has in memory, and how it changes them."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from deop.bank.bank import Bank
from deop.bank.learning import REGIONS_PER_NAME, digest_of, learn_encoded
from deop.bank.space import check_bank
from deop.errors import CheckpointError
from deop.serving.bank_requests import Examples
from deop.serving.banks import MissingBanks, StoredBank, check_size, unknown_bank
from deop.serving.limits import Limits
from deop.serving.mark_requests import decode_marks
from deop.serving.problems import Problem

if TYPE_CHECKING:
    from deop.serving.work import Work
    from deop.surface import ModelSurface

_KEPT = 8
"""Banks of clients in the memory of a worker; the accepting process has them all."""


class BanksAreMissing(Exception):
    """The worker does not have the content of some banks.

    Args:
        digests: of these banks.
    """

    def __init__(self, digests: Sequence[str]) -> None:
        super().__init__()
        self.missing = MissingBanks(tuple(digests))


class WorkerBanks:
    """The banks of the operator, and those of clients that were used last, by digest.

    Args:
        model: the model; other models' banks are refused.
        limits: for banks of clients.
        given: the banks of the operator, by name.
    """

    def __init__(self, model: "ModelSurface", limits: Limits, given: Mapping[str, Bank]) -> None:
        self._model = model
        self._limits = limits
        self._given = given
        self._recent: OrderedDict[tuple[str, ...], Bank] = OrderedDict()

    def __len__(self) -> int:
        return len(self._recent)

    def of(self, keys: Sequence[str], work: "Work") -> Bank | None:
        """The examples of all banks that a question names; None: there are none.

        Args:
            keys: ids of banks of the client, or names of given ones.
            work: says which banks the client has.

        Raises:
            Problem: an id that is not known.
            BanksAreMissing: contents that have to be sent.
            VocabularyError: banks with names that clash.
        """
        digests: dict[str, Bank | None] = {}
        for key in keys:
            if key in self._given:
                digests[self._given[key].digest] = self._given[key]
            elif key not in work.banks:
                raise unknown_bank()
            elif work.banks[key]:
                digests.setdefault(work.banks[key], None)
        for digest in digests:
            digests[digest] = digests[digest] or self._recent_one(digest, work.contents)
        if missing := [digest for digest, bank in digests.items() if bank is None]:
            raise BanksAreMissing(missing)
        found = [bank for bank in digests.values() if bank is not None]
        if len(found) < 2:
            return found[0] if found else None
        parts = tuple(sorted(digests))
        return self._recall(parts) or self._keep(parts, Bank.merged(found))

    def _recent_one(self, digest: str, contents: Mapping[str, bytes]) -> Bank | None:
        bank = self._recall((digest,))
        if bank is None and digest in contents:
            bank = self._keep((digest,), Bank.from_bytes(contents[digest]))
        return bank

    def _recall(self, key: tuple[str, ...]) -> Bank | None:
        bank = self._recent.get(key)
        if bank is not None:
            self._recent.move_to_end(key)
        return bank

    def _keep(self, key: tuple[str, ...], bank: Bank) -> Bank:
        while len(self._recent) >= _KEPT:
            self._recent.popitem(last=False)
        self._recent[key] = bank
        return bank

    def learn(self, work: "Work", encoded: Any, examples: Examples, encoding: Mapping[str, Any]) -> StoredBank:
        """A bank with further examples.

        Args:
            work: names the bank.
            encoded: the photo.
            examples: its marked regions.
            encoding: the options that it was encoded with.

        Raises:
            Problem: a mask that does not fit, or too many examples.
            DeopError: marks or names that cannot be learned.
        """
        before = self.of([work.bank], work)
        if examples.replace and before is not None:
            before = before.without_photos({digest_of(encoded.photo)})
        parts = [] if before is None else [before]
        if examples.examples:
            marks = decode_marks(examples.examples, encoded.photo.shape[:2], self._limits)
            parts.append(learn_encoded(self._model, encoded, marks, examples.names(), **encoding))
        return self._stored(parts)

    def merge(self, work: "Work") -> StoredBank:
        """A bank with the examples of a file that a client has sent.

        Raises:
            Problem: it is no bank, damaged, or too large.
            DeopError: it is of another model.
        """
        before = self.of([work.bank], work) if work.bank else None
        try:
            sent = Bank.from_bytes(work.body, source="the file")
        except CheckpointError as error:
            raise Problem(422, str(error)) from None
        check_size(sent, self._limits)
        check_bank(self._model, sent)
        return self._stored([sent] if before is None else [before, sent])

    def forget(self, work: "Work", names: Sequence[str]) -> StoredBank:
        """A bank without the examples of some names.

        Raises:
            VocabularyError: a name that it does not have.
        """
        bank = self.of([work.bank], work)
        if bank is None:
            raise Problem(422, "the bank has no examples: there is nothing to forget")
        return self._stored([bank.without(names)])

    def _stored(self, parts: Sequence[Bank]) -> StoredBank:
        filled = [part for part in parts if len(part)]
        if not filled:
            return StoredBank()
        bank = Bank.merged(filled).limited(REGIONS_PER_NAME)
        check_size(bank, self._limits)
        self._keep((bank.digest,), bank)
        return StoredBank.of(bank)
