"""The text encoder of CLIP: the common suite, parity with the original, equality with transformers, and errors."""

import json
from pathlib import Path

import instant_clip_tokenizer
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deop.encoders.clip_text import CLIPText, TextConfig
from deop.encoders.text_tower import read_tokenizer
from deop.errors import CheckpointError
from deop.text.embedding import average_templates
from deop.text.templates import IMAGENET, SINGLE, VILD, fill
from tests.conftest import assert_parity
from tests.encoders.suite import TextEncoderSuite
from tests.fixtures.clip_vocabulary import write_clip_vocabulary
from tests.tiny import write_tiny_tokenizer

TEXTS = ["cat", "a photo of a dog.", "sofa", "wall in the scene, by night", ""]


def parity_state(file):
    """The text encoder's weights; rows of the token table that the file lacks are 0."""
    rows, ids = file["token_embedding.rows"], file["token_embedding.row_ids"].long()
    table = torch.zeros(file.info["vocab"], rows.shape[1]).index_copy(0, ids, rows)
    return file.below("state.") | {"token_embedding.weight": table}


def parity_tower(file, prompt=None):
    return CLIPText.from_openai(parity_state(file), prompt, heads=file.info["heads"])


@pytest.fixture
def tower(tiny_clip):
    return CLIPText.from_folder(tiny_clip)


@pytest.mark.parametrize("templates", ["single", "vild", "imagenet"])
@torch.no_grad()
def test_parity_template_sets(parity, templates):
    file = parity("text")
    ids = file[f"tokens.{templates}"]
    encoded = parity_tower(file).encode_tokens(ids.flatten(0, 1)).unflatten(0, ids.shape[:2])
    rows = torch.from_numpy(average_templates(encoded.transpose(0, 1).numpy()))
    assert_parity(rows, file[f"embedding.{templates}"])


@torch.no_grad()
def test_parity_bare_names_not_normalised(parity):
    file = parity("text")
    tower = parity_tower(file)
    assert_parity(tower.encode_tokens(file["tokens.nouns"]), file["encode_text.nouns_unnormalised"])


@torch.no_grad()
def test_parity_every_position(parity):
    file = parity("text")
    tower = parity_tower(file)
    ids, expected = file["tokens.nouns"].long(), file["encode_text_all.nouns"]
    count, length = ids.shape
    rows = tower.tower.get_input_embeddings()(ids).repeat_interleave(length, 0)
    states = tower.encode_embeddings(rows, torch.arange(length).repeat(count))
    assert_parity(states.unflatten(0, (count, length)), expected)


@pytest.mark.parametrize("padding", ["zeros", "end", "cut"])
@torch.no_grad()
def test_parity_padding_does_not_matter(parity, padding):
    file = parity("text")
    ids = file["tokens.nouns"].long()
    end = ids.argmax(-1, keepdim=True)
    if padding == "end":
        ids = torch.where(torch.arange(ids.shape[1]) > end, ids.max(), ids)
    elif padding == "cut":
        ids = ids[:, : int(end.max()) + 1]
    assert_parity(parity_tower(file).encode_tokens(ids), file["encode_text.nouns_unnormalised"])


def learned_prompts(file):
    return sorted({key.split(".")[0] for key in file.tensors if key.startswith("learnable_")})


@torch.no_grad()
def test_parity_learned_prompts(parity):
    file = parity("text")
    assert learned_prompts(file)
    for name in learned_prompts(file):
        tower = parity_tower(file, file.below(f"{name}.state."))
        assert tower.config.prompt == tuple(int(part) for part in name.split("_")[1:])
        ids = file["tokens.nouns"].long()
        table = tower.tower.get_input_embeddings()
        names = [table(row[1 : int(row.argmax())]) for row in ids]
        embeddings, end = tower.prompt(names)
        assert end.tolist() == file[f"{name}.eot_index"].tolist()
        rows = torch.nn.functional.normalize(tower.encode_embeddings(embeddings, end), dim=-1)
        assert_parity(rows, file[f"{name}.embedding"])
        no_object = torch.nn.functional.normalize(file["non_object_embedding"], dim=-1)
        assert_parity(torch.cat([rows, no_object]), file[f"{name}.text_features_with_no_object"])


def test_parity_prompt_vectors_are_rows_of_the_table(parity):
    """The vectors stored with the original's prompt equal the rows of the table that ``add_prompt`` uses."""
    file = parity("text")
    table = parity_state(file)["token_embedding.weight"]
    start, _, dot, end, pad = file["tokens.X_dot"][0, :5].tolist()
    for name in learned_prompts(file):
        for key, token in (("start", start), ("dot", dot), ("end", end), ("pad", pad)):
            assert torch.equal(file[f"{name}.state.{key}_signal"], table[[token]])


@pytest.fixture(scope="module")
def clip_tokenizer(tmp_path_factory):
    return read_tokenizer(write_clip_vocabulary(tmp_path_factory.mktemp("clip-vocabulary")))


@pytest.mark.parametrize(("key", "templates"), [("single", SINGLE), ("vild", VILD), ("imagenet", IMAGENET)])
def test_parity_template_sentences(parity, clip_tokenizer, key, templates):
    """Our templates, filled with the file's names and tokenized by us, give the original's token ids."""
    file = parity("text")
    sentences = [fill(template, noun) for template in templates for noun in file.info["nouns"]]
    ids = file[f"tokens.{key}"].flatten(0, 1)
    ours = clip_tokenizer(sentences, padding="max_length", max_length=ids.shape[1])
    actual = torch.tensor(ours["input_ids"]) * torch.tensor(ours["attention_mask"])  # the original pads with 0
    assert torch.equal(actual, ids.long())


@pytest.fixture(scope="module")
def independent_tokenizer():
    return instant_clip_tokenizer.Tokenizer()  # takes a third of a second


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(max_codepoint=0x24F), max_size=30) | st.text("abcXYZ 019'.,-!é\t\n", max_size=40))
@example("The DOG's   12345 café-crème!? I'll, don't")
@example("犬と猫 🐕🐈 naïve ﬁsh")
def test_tokens_equal_an_independent_tokenizer(clip_tokenizer, independent_tokenizer, text):
    start, *actual, end = clip_tokenizer(text)["input_ids"]
    assert (start, end) == (49406, 49407)
    assert actual == independent_tokenizer.encode(text)


def transformers_features(folder, texts):
    from transformers import AutoTokenizer, CLIPModel

    tokens = AutoTokenizer.from_pretrained(folder)(
        texts, padding=True, truncation=True, max_length=77, return_tensors="pt"
    )
    features = CLIPModel.from_pretrained(folder).eval().get_text_features(**tokens)
    return features if isinstance(features, torch.Tensor) else features.pooler_output


@torch.no_grad()
def test_equals_transformers(tiny_clip, tower):
    texts = [*TEXTS, "a very long text " * 30]
    torch.testing.assert_close(tower.embed(texts), transformers_features(tiny_clip, texts), rtol=1e-5, atol=1e-5)


def rewrite(folder: Path, target: Path, **text_config) -> Path:
    """The folder again, with other text settings."""
    config = json.loads((folder / "config.json").read_text())
    config["text_config"].update(text_config)
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    (target / "config.json").write_text(json.dumps(config))
    return target


@pytest.mark.parametrize(
    "settings", [{"eos_token_id": 2, "bos_token_id": 0, "pad_token_id": 1}, {"hidden_act": "gelu"}]
)
@torch.no_grad()
def test_equals_transformers_for_other_repos(tiny_clip, tmp_path, settings):
    """OpenAI's repos have 2 as the end token; LAION's use GELU."""
    folder = rewrite(tiny_clip, tmp_path, **settings)
    torch.testing.assert_close(
        CLIPText.from_folder(folder).embed(TEXTS), transformers_features(folder, TEXTS), rtol=1e-5, atol=1e-5
    )


class TestCLIPText(TextEncoderSuite):
    @pytest.fixture
    def text(self, tower):
        return tower


class TestLearnedPrompt(TextEncoderSuite):
    @pytest.fixture
    def text(self, tower):
        torch.manual_seed(0)
        tower.add_prompt(prefix=3, suffix=1)
        return tower


@torch.no_grad()
def test_a_long_text_is_cut_at_the_context(tower):
    letters = tower.context_length - 2
    assert tower.count_tokens("x" * letters) == tower.context_length
    assert tower.count_tokens("x" * letters + "y") == tower.context_length + 1
    assert torch.equal(tower.embed(["x" * letters + "y"]), tower.embed(["x" * letters + "zz"]))
    assert not torch.equal(tower.embed(["x" * letters]), tower.embed(["x" * (letters - 1)]))


@torch.no_grad()
def test_learned_prompt_by_hand(tower):
    """The prompt encodes the sequence [start] prefix [name] suffix [.] [end]."""
    prompt = tower.add_prompt(prefix=3, suffix=2)
    assert not tower.uses_templates
    table = tower.tower.get_input_embeddings().weight
    start, *name, end = tower.tokenizer("dog cat")["input_ids"]
    dot = tower.tokenizer(".")["input_ids"][1]
    row = torch.cat([table[[start]], prompt.prefix, table[name], prompt.suffix, table[[dot]], table[[end]]])
    expected = tower.encode_embeddings(row[None], torch.tensor([len(row) - 1]))
    torch.testing.assert_close(tower.embed(["cat", "dog cat", "x y z"])[1:2], expected, rtol=1e-5, atol=1e-6)
    assert tower.count_tokens("dog cat") == len(row)
    long = "x" * (tower.context_length - prompt.overhead)
    assert tower.count_tokens(long) == tower.context_length
    assert torch.equal(tower.embed([long + "y"]), tower.embed([long + "zz"]))


def test_prompt_learns(tower):
    prompt = tower.add_prompt(prefix=4)
    tower.embed(["cat", "dog"]).square().sum().backward()
    assert prompt.prefix.grad.abs().sum() > 0


def test_identity_depends_on_weights_prompt_and_settings(tiny_clip, tower, tmp_path):
    def differs(change):
        other = CLIPText.from_folder(tiny_clip)
        assert other.identity == tower.identity
        change(other)
        return other.identity != tower.identity

    def touch(other):
        with torch.no_grad():
            next(other.tower.parameters()).view(-1)[0] += 1e-3

    assert differs(touch)
    assert differs(lambda other: other.add_prompt(prefix=1))
    assert CLIPText.from_folder(rewrite(tiny_clip, tmp_path, hidden_act="gelu")).identity != tower.identity


@torch.no_grad()
def test_export(tower):
    class FromEmbeddings(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.text = tower

        def forward(self, embeddings, end):
            return self.text.encode_embeddings(embeddings, end)

    inputs = (torch.randn(2, 9, tower.config.width), torch.tensor([8, 3]))
    exported = torch.export.export(FromEmbeddings().eval(), inputs).module()
    torch.testing.assert_close(exported(*inputs), tower.encode_embeddings(*inputs), atol=1e-5, rtol=1e-4)


def openai_state(width=8):
    config = TextConfig(tokens=20, width=width, layers=1, heads=2, hidden=16, context=7, output=4)
    layer = "transformer.resblocks.0"
    shapes = {
        "token_embedding.weight": (config.tokens, width),
        "positional_embedding": (config.context, width),
        "text_projection": (width, config.output),
        "logit_scale": (),
        f"{layer}.attn.in_proj_weight": (3 * width, width),
        f"{layer}.attn.in_proj_bias": (3 * width,),
        f"{layer}.attn.out_proj.weight": (width, width),
        f"{layer}.attn.out_proj.bias": (width,),
        f"{layer}.mlp.c_fc.weight": (config.hidden, width),
        f"{layer}.mlp.c_fc.bias": (config.hidden,),
        f"{layer}.mlp.c_proj.weight": (width, config.hidden),
        f"{layer}.mlp.c_proj.bias": (width,),
    }
    norms = ["ln_final", f"{layer}.ln_1", f"{layer}.ln_2"]
    shapes |= {f"{norm}.{kind}": (width,) for norm in norms for kind in ("weight", "bias")}
    return {key: torch.randn(shape) for key, shape in shapes.items()}


def test_openai_sizes_come_from_the_shapes():
    config = CLIPText.from_openai(openai_state(), heads=2).config
    assert config == TextConfig(tokens=20, width=8, layers=1, heads=2, hidden=16, context=7, output=4)


@pytest.mark.parametrize(
    ("missing", "surplus"),
    [
        ("ln_final.bias", None),
        ("text_projection", None),
        (None, "visual.proj"),
        (None, "transformer.resblocks.0.extra"),
    ],
)
def test_openai_keys_must_fit(missing, surplus):
    state = openai_state()
    if missing:
        del state[missing]
    if surplus:
        state[surplus] = torch.zeros(1)
    with pytest.raises(CheckpointError, match=surplus or r"final_layer_norm\.bias|text_projection"):
        CLIPText.from_openai(state, heads=2)


@pytest.mark.parametrize(("missing", "surplus"), [("dot_signal", None), (None, "class_prompt")])
def test_prompt_keys_must_fit(missing, surplus):
    signals = ("start_signal", "dot_signal", "end_signal", "pad_signal")
    prompt = {"prefix_prompt": torch.zeros(3, 8)} | {key: torch.zeros(1, 8) for key in signals}
    CLIPText.from_openai(openai_state(), prompt, heads=2)
    prompt.pop(missing, None)
    if surplus:
        prompt[surplus] = torch.zeros(1)
    with pytest.raises(CheckpointError, match=missing or surplus):
        CLIPText.from_openai(openai_state(), prompt, heads=2)


def test_errors(tiny_clip, tmp_path):
    with pytest.raises(CheckpointError, match=r"no tokenizer in .*tokenizer\.json"):
        read_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot read the tokenizer"):
        read_tokenizer(tmp_path)
    with pytest.raises(CheckpointError, match=r"is not a model folder: it has no config\.json"):
        CLIPText.from_folder(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(CheckpointError, match="model type 'bert'"):
        CLIPText.from_folder(tmp_path)
    with pytest.raises(CheckpointError, match="colour"):
        CLIPText.from_config({"colour": 1})
    with pytest.raises(CheckpointError, match="unknown activation 'relu'"):
        TextConfig(activation="relu")
    with pytest.raises(CheckpointError, match="width 8 of the text encoder is not divisible by its 3 heads"):
        TextConfig(width=8, heads=3)
    with pytest.raises(CheckpointError, match="no tokenizer: load it from a folder"):
        CLIPText.from_openai(openai_state(), heads=2).embed(["cat"])
    tower = CLIPText.from_folder(tiny_clip)
    with pytest.raises(CheckpointError, match="has no end token"):
        tower.encode_tokens(torch.zeros(1, 5, dtype=torch.long))


def test_tokenizer_of_vocab_and_merges_alone(tmp_path):
    """Older repos do not have tokenizer.json."""
    write_tiny_tokenizer(tmp_path)
    whole = read_tokenizer(tmp_path)("a cat, a dog")["input_ids"]
    (tmp_path / "tokenizer.json").unlink()
    assert read_tokenizer(tmp_path)("a cat, a dog")["input_ids"] == whole


@pytest.mark.parametrize(
    "text", ["façade", "Straße", "猫", "кот", "☕ cup", "👩‍👧", "cup 7", "٣", "\uff43\uff55\uff50", "C++", "x" * 300]
)
def test_every_character_is_read(tiny_clip, text):
    """Bytes are tokens: no character is unknown, and each text has an embedding of its own."""
    encoder = CLIPText.from_folder(tiny_clip)
    [ids] = encoder._tokenize([text])
    assert len(ids) > 2
    assert ids[-1] not in ids[:-1]  # the end token, which also stands for what a vocabulary lacks
    rows = encoder.embed([text, "facade", "cup", ""])
    assert rows.isfinite().all()
    assert all(not torch.equal(rows[0], other) for other in rows[1:])
