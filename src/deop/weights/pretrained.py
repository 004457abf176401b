"""Loading, saving and publishing of a model as a folder."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from torch import nn

from deop.encoders.int8 import is_int8
from deop.errors import SettingError
from deop.files import existing_folder
from deop.networks.loading import load_strictly
from deop.settings import Card, Settings
from deop.weights.format import ModelParts, load_model_folder, save_model_folder
from deop.weights.hub import fetch, publish


class Pretrained(nn.Module):
    """The methods of ``DeOP`` that read and write folders; the attributes are those of ``DeOP``."""

    encoder: Any
    text: Any
    proposer: Any
    anchors: Any
    no_object: Any
    settings: Settings
    card: Card

    @classmethod
    def from_pretrained(cls, name: str | Path, *, revision: str | None = None) -> Self:
        """Load a model in deop's format from a folder or a hub repo.

        Raises:
            ModelNotFoundError: no such folder or repo, or the hub cannot be reached and the model is not cached.
            CheckpointError: a damaged or incomplete model, or another format.
        """
        folder = existing_folder(name) or fetch(str(name), revision or "main")
        parts, state = load_model_folder(folder)
        model = cls(
            parts.encoder,
            parts.text,
            parts.proposer,
            anchors=parts.anchors,
            no_object=parts.no_object,
            settings=parts.settings,
            card=parts.card,
        )
        load_strictly(model, state, str(folder))
        return model.eval()

    def save_pretrained(self, folder: str | Path, *, packed: bool = False) -> Path:
        """Write ``config.json``, ``model.safetensors``, tokenizer and model card into a folder.

        Args:
            folder: is created if it does not exist.
            packed: store weights as int8 and float16: a quarter of the size, with a small loss of precision.

        Returns:
            The folder.

        Raises:
            OutputError: the folder cannot be written; no partial files remain.
            SettingError: the model was loaded in int8, whose packed weights cannot be saved, or its severance is a
                function.
        """
        if is_int8(self):
            raise SettingError(
                'a model in int8 cannot be saved: load it without dtype="int8", and use packed=True for a small file'
            )
        if callable(self.settings.severance.kind):
            raise SettingError(
                f"the severance {self.settings.severance.name!r} is a function, which cannot be saved: set "
                "settings.severance to one of deop's kinds first"
            )
        parts = ModelParts(
            self.encoder, self.text, self.proposer, self.anchors, self.no_object, self.settings, self.card
        )
        state = {key: value for key, value in self.state_dict().items() if not key.startswith("proxy.")}
        return save_model_folder(parts, state, Path(folder), packed=packed)

    def push_to_hub(self, repo_id: str, *, private: bool | None = None, message: str = "Upload deop model") -> str:
        """Publish the model on the Hugging Face hub.

        Args:
            repo_id: name of the repo; it is created if it does not exist.
            private: whether a new repo is private; None: the default of the account.
            message: commit message.

        Returns:
            The URL of the commit.
        """
        with TemporaryDirectory() as folder:
            return publish(self.save_pretrained(folder), repo_id, private=private, message=message)
