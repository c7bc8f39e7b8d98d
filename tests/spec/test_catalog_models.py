"""Models that a spec names: the real libraries', measured against a dense Hessian, and closed to everything else."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from samdiag.cli.app import app
from samdiag.errors import UsageError
from samdiag.formats import Checkpoint, open_checkpoint
from samdiag.spec.build import build
from samdiag.spec.catalog import build_model
from samdiag.spec.requests import Model, ModelRequest
from samdiag.types import Trust
from tests.spec.catalog_truth import check_ends, no_network  # noqa: F401  (a fixture)
from tests.torchvision_ops import declare

Ask = Callable[..., Model]
BERT = {"vocab_size": 11, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
GPT2 = {
    "vocab_size": 11,
    "n_positions": 8,
    "n_embd": 8,
    "n_layer": 1,
    "n_head": 2,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
VIT = {"image_size": 8, "patch_size": 4, "num_labels": 3, **{key: BERT[key] for key in list(BERT)[1:]}}


@pytest.fixture(scope="module", autouse=True)
def libraries() -> None:
    declare()


@pytest.fixture
def ask(folder: Path) -> Ask:
    def model(library: str, name: str, args: dict[str, Any] | None = None, **more: Any) -> Model:
        config = more.pop("own_config", None)
        path = folder / "model.safetensors"
        path.touch()
        checkpoint = Checkpoint(path=path, format="x", fingerprint="", load=lambda _: {}, config=config)
        said = {"trust": Trust.PROJECT, "source": "samdiag.toml", "folder": folder, "config": None} | more
        return build_model(ModelRequest(library=library, name=name, args=args or {}, checkpoint=checkpoint, **said))

    return model


def images(folder: Path, size: int = 8, num_samples: int = 8) -> None:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(num_samples, 3, size, size, generator=generator)
    save_file({"inputs": inputs, "targets": torch.arange(num_samples) % 3}, folder / "data.safetensors")


def tokens(folder: Path, *, masked: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, 11, (8, 6), generator=generator)
    mask = (torch.arange(6) < torch.tensor([3, 6, 4, 5, 6, 2, 6, 4])[:, None]).long()
    columns = {"input_ids": ids, "attention_mask": mask}
    if masked:
        columns["labels"] = ids.masked_fill((torch.rand(8, 6, generator=generator) > 0.4) | (mask == 0), -100)
    save_file(columns, folder / "data.safetensors")


def spec(folder: Path, model: str, loss: str = "cross_entropy") -> None:
    text = f'model = {model}\nloss = "{loss}"\ndata = {{ tensors = "data.safetensors" }}\nsam = {{ rho = 0.05 }}\n'
    (folder / "samdiag.toml").write_text(text)


def timm_vit(folder: Path) -> str:
    import timm

    args = {
        "img_size": 8,
        "patch_size": 4,
        "embed_dim": 8,
        "depth": 1,
        "num_heads": 2,
        "mlp_ratio": 1,
        "num_classes": 3,
    }
    save_file(timm.create_model("vit_tiny_patch16_224", **args).state_dict(), folder / "a.safetensors")
    images(folder)
    spec(folder, f'{{ timm = "vit_tiny_patch16_224", args = {toml(args)} }}')
    return "a.safetensors"


def bert(folder: Path) -> str:
    import transformers

    transformers.BertForMaskedLM(transformers.BertConfig(**BERT)).save_pretrained("saved")
    tokens(folder, masked=True)
    spec(folder, '{ transformers = "auto" }')
    return "saved"


def gpt2(folder: Path) -> str:
    import transformers

    transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT2)).save_pretrained("saved")
    tokens(folder, masked=False)
    spec(folder, '{ transformers = "auto" }', "causal_lm")
    return "saved"


def vit(folder: Path) -> str:
    import transformers

    transformers.ViTForImageClassification(transformers.ViTConfig(**VIT)).save_pretrained("saved")
    images(folder)
    spec(folder, '{ transformers = "ViTForImageClassification" }')
    return "saved"


def resnet10t(folder: Path) -> str:
    import timm

    model = timm.create_model("resnet10t", num_classes=3)
    with (
        torch.no_grad()
    ):  # as made, each block's last norm is zero and ReLU stands on its kink: no trained network does
        for value in model.parameters():
            value.add_(0.1 * torch.randn_like(value))
    save_file(model.state_dict(), folder / "a.safetensors")
    images(folder, 32, 3)
    spec(folder, '{ timm = "resnet10t", args = { num_classes = 3 } }')
    return "a.safetensors"


def squeezenet(folder: Path) -> str:
    import torchvision

    model = torchvision.models.squeezenet1_1(num_classes=3)
    save_file(model.state_dict(), folder / "a.safetensors")
    images(folder, 32, 3)
    spec(folder, '{ torchvision = "squeezenet1_1", args = { num_classes = 3 } }')
    return "a.safetensors"


def toml(args: dict[str, Any]) -> str:
    return "{ " + ", ".join(f"{name} = {json.dumps(value)}" for name, value in args.items()) + " }"


def test_weights_under_the_names_of_an_older_transformers_are_the_librarys_own(folder: Path, resolved) -> None:
    import transformers
    from safetensors.torch import load_file

    torch.manual_seed(0)
    vit(folder)
    stored = load_file("saved/model.safetensors")
    theirs = transformers.ViTForImageClassification.from_pretrained("saved").state_dict()
    assert not set(stored) <= set(theirs)  # else there is nothing to convert
    checkpoint = open_checkpoint("saved")
    ours = build(resolved(checkpoint), checkpoint).problem.model.state_dict()
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    removed = sorted(stored)[3]
    save_file({**{n: v for n, v in stored.items() if n != removed}, "junk": torch.zeros(1)}, "saved/model.safetensors")
    checkpoint = open_checkpoint("saved")
    with pytest.raises(UsageError, match=r"missing: vit\.[\w.]+; not in the model: junk"):
        build(resolved(checkpoint), checkpoint)
    save_file({**stored, removed: torch.zeros(1)}, "saved/model.safetensors")
    checkpoint = open_checkpoint("saved")
    with pytest.raises(UsageError, match=r"another shape than in the model: .* \(1,\) against"):
        build(resolved(checkpoint), checkpoint)


@pytest.mark.slow
@pytest.mark.parametrize("make", [timm_vit, bert, gpt2, vit])
def test_both_ends_are_those_of_a_dense_hessian(folder: Path, resolved, make: Callable[[Path], str]) -> None:
    torch.manual_seed(0)
    checkpoint = open_checkpoint(make(folder))
    check_ends(build(resolved(checkpoint), checkpoint).problem)


@pytest.mark.slow
@pytest.mark.parametrize("make", [timm_vit, bert, gpt2, vit, resnet10t, squeezenet])
def test_inspect_from_the_command_line(folder: Path, make: Callable[[Path], str]) -> None:
    torch.manual_seed(0)
    path = make(folder)
    limits = ["--max-products", "4", "--device", "cpu", "--format", "json", "--fail-on", "never"]
    result = CliRunner().invoke(app, ["inspect", path, *limits])
    report = json.loads(result.stdout)
    assert report["failure"] is None, result.stderr
    assert result.exit_code in {0, 3}
    assert report["measurements"]["self_check"]["passed"] is not False
    assert report["measurements"]["num_params"] > 100


def test_the_models_are_the_libraries_own(ask: Ask) -> None:
    import timm
    import torchvision
    import transformers

    made = ask("timm", "resnet10t", {"num_classes": 3, "pretrained": False}).module
    assert {n: v.shape for n, v in made.state_dict().items()} == {
        n: v.shape for n, v in timm.create_model("resnet10t", num_classes=3).state_dict().items()
    }
    assert ask("timm", "resnet18.a1_in1k").module.num_classes == 1000
    assert type(ask("torchvision", "squeezenet1_1").module) is torchvision.models.SqueezeNet
    bert = ask("transformers", "BertForMaskedLM", {**BERT, "attn_implementation": "sdpa"}).module
    assert type(bert) is transformers.BertForMaskedLM
    assert bert.config._attn_implementation == "eager"
    assert {value.dtype for value in bert.parameters()} == {torch.float32}


def test_the_configuration_is_the_checkpoints_the_named_files_or_the_arguments(folder: Path, ask: Ask) -> None:
    own = {**GPT2, "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "torch_dtype": "bfloat16"}
    own |= {"_name_or_path": "gpt2", "use_cache": True, "transformers_version": "1.0"}
    model = ask("transformers", "auto", own_config=own).module
    assert (model.config.n_embd, model.config.use_cache) == (8, False)
    assert next(model.parameters()).dtype == torch.float32
    assert ask("transformers", "auto", {"n_embd": 4}, own_config=own).module.config.n_embd == 4
    (folder / "other.json").write_text(json.dumps({**own, "n_embd": 6}))
    assert ask("transformers", "auto", own_config=own, config="other.json").module.config.n_embd == 6
    other = ask("transformers", "BertForMaskedLM", {"model_type": "bert", **BERT}, own_config=own).module
    assert other.config.model_type == "bert"
    coded = {**own, "auto_map": {"AutoModelForCausalLM": "mine.Mine"}}
    found = ask("transformers", "GPT2LMHeadModel", own_config=coded)
    assert "auto_map" in found.notes[0]


CODED = {**BERT, "auto_map": {"AutoModel": "mine.Mine"}}
WRAPPER = {"model_type": "timm_wrapper", "architecture": "resnet18"}
HUB = {"backbone": "microsoft/resnet-50"}


@pytest.mark.parametrize(
    ("library", "name", "args", "more", "what"),
    [
        ("timm", "resnet10", {}, {}, "did you mean 'resnet10t'"),
        ("timm", "hf-hub:timm/resnet18", {}, {}, "timm has no model 'hf-hub:timm/resnet18'"),
        ("timm", "local-dir:/tmp", {}, {}, "timm has no model"),
        ("timm", "resnet18.a1_in2k", {}, {}, "did you mean 'a1_in1k'"),
        ("timm", "resnet18", {"pretrained": True}, {}, "model.args.pretrained = True (samdiag.toml) is refused"),
        ("timm", "resnet18", {"checkpoint_path": "a.pth"}, {}, "it names a file or an address"),
        ("timm", "resnet18", {"pretrained_cfg": {"url": "http://a"}}, {}, "weights of its own"),
        ("timm", "resnet18", {"act_layer": "hf-hub:a"}, {}, "it names a file or an address"),
        ("timm", "resnet18", {"block_args": [{"file": "../a"}]}, {}, "model.args.block_args.0.file"),
        ("timm", "resnet18", {"nonsense": 1}, {}, "model (timm resnet18) raised TypeError"),
        ("torchvision", "resnet81", {}, {}, "did you mean 'resnet18'"),
        ("torchvision", "fasterrcnn_resnet50_fpn", {}, {}, "is no image classifier"),
        ("torchvision", "resnet18", {"weights": "DEFAULT"}, {}, "model.args.weights = 'DEFAULT'"),
        ("torchvision", "resnet18", {"weights_backbone": "DEFAULT"}, {}, "weights of its own"),
        ("transformers", "BertForMaskedLN", BERT, {}, "did you mean 'BertForMaskedLM'"),
        ("transformers", "AutoModel", BERT, {}, "no model class 'AutoModel'"),
        ("transformers", "PreTrainedModel", BERT, {}, "no model class"),
        ("transformers", "pipeline", BERT, {}, "no model class"),
        ("transformers", "utils", BERT, {}, "no model class"),
        ("transformers", "__file__", BERT, {}, "no model class"),
        ("transformers", "BertForMaskedLM", {}, {}, "needs a configuration"),
        ("transformers", "auto", BERT, {}, "which has no architectures"),
        ("transformers", "BertForMaskedLM", {"model_type": "gpt2"}, {}, "takes a configuration of model_type 'bert'"),
        ("transformers", "BertForMaskedLM", {"_name_or_path": "a"}, {}, "model.args._name_or_path = 'a'"),
        ("transformers", "BertForMaskedLM", {"trust_remote_code": True}, {}, "never run"),
        ("transformers", "BertForMaskedLM", {"vocab_size": "many"}, {}, "the configuration of BertForMaskedLM raised"),
        ("transformers", "auto", {}, {"own_config": {"architectures": ["os.system"]}}, "no model class 'os.system'"),
        ("transformers", "auto", {}, {"own_config": {**CODED, "architectures": ["BertModel"]}}, "has auto_map"),
        ("transformers", "BertModel", {}, {"own_config": CODED, "trust": Trust.ARTIFACT}, "has auto_map"),
        ("transformers", "BertModel", {}, {"own_config": {"quantization_config": {"bits": 4}}}, "have no derivative"),
        ("transformers", "DetrForObjectDetection", {}, {"own_config": HUB}, "is looked up outside the checkpoint"),
        ("transformers", "TimmWrapperModel", {}, {"own_config": WRAPPER}, "wraps another library"),
        ("transformers", "BertModel", {}, {"config": "nowhere.json"}, "there is no such file"),
        ("transformers", "BertModel", {}, {"config": "c.json", "trust": Trust.ARTIFACT}, "names a path"),
    ],
)
def test_catalogs_are_closed(*, ask: Ask, library, name, args, more, what) -> None:
    with pytest.raises(UsageError) as caught:
        ask(library, name, args, **more)
    assert what in caught.value.what
    assert "\n" not in caught.value.what


@pytest.mark.parametrize("library", ["timm", "torchvision", "transformers"])
def test_a_library_that_is_missing_or_broken_says_so(ask: Ask, monkeypatch, library: str) -> None:
    class Blocked:
        def __init__(self, error: Exception) -> None:
            self.error = error

        def find_spec(self, name: str, *_: Any) -> None:
            if name.partition(".")[0] == library:
                raise self.error

    for name in [name for name in sys.modules if name.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    missing = ModuleNotFoundError(f"No module named {library!r}", name=library)
    monkeypatch.setattr(sys, "meta_path", [Blocked(missing), *sys.meta_path])
    with pytest.raises(UsageError) as caught:
        ask(library, "anything", {"a": 1})
    assert caught.value.what == f"model.{library} needs {library}, which is not installed"
    assert caught.value.todo == f"pip install 'samdiag[{library}]'"
    sys.meta_path[0] = Blocked(RuntimeError("operator torchvision::nms does not exist"))
    with pytest.raises(UsageError, match=f"needs {library}, which is installed and does not import: RuntimeError: op"):
        ask(library, "anything", {"a": 1})
