"""The recipes that ship: each pair agrees, from configuration and tokenizer as they are on the hub, made by code."""

import json
import re
from dataclasses import replace
from fnmatch import fnmatch
from importlib import resources
from pathlib import Path

import families
import pytest
from families import FAMILIES

from harness import plan, recipe
from harness.cli import main
from harness.errors import BadInput
from harness.estimate.memory_check import work
from harness.estimate.resources import DEVICES, excess, stages_of
from harness.estimate.shapes import PUBLISHED, published
from harness.models import files
from harness.papers import spec

# The family of a model by how its name begins. Papers name models of other families too.
KINDS = (
    ("Qwen2.5-Math", "qwen2.5-math"), ("Qwen2-Math", "qwen2.5-math"), ("Qwen2", "qwen2.5"),
    ("Qwen3", "qwen3"), ("deepseek-coder", "deepseek-coder"), ("gemma", "gemma"),
)  # fmt: skip
REAL = [name for name in recipe.names() if re.fullmatch(r"[\w.-]+/[\w.@-]+", recipe.load(name).models.student)]


def kind(model: str) -> tuple[str, bool] | None:
    """The family of a model of the hub, and whether it is one that chats; None for a family that is not made here."""
    name = model.partition("/")[2].partition("@")[0]
    family = next((family for start, family in KINDS if name.startswith(start)), None)
    chats = not name.endswith("-Base") if family == "qwen3" else name.lower().endswith(("-instruct", "-it"))
    return family and (family, chats)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub of models without weights: what is asked of it is noted as (name, revision, patterns)."""
    asked = []

    def snapshot_download(repository, revision=None, allow_patterns=None, local_files_only=False, **_):
        if local_files_only:
            raise OSError("not in the cache")
        asked.append((repository, revision, tuple(allow_patterns or ())))
        folder = tmp_path / "hub" / repository
        if not folder.is_dir():
            family, instruct = kind(repository)
            shape = PUBLISHED[repository]
            folder.mkdir(parents=True)
            made = families.tokenizer(FAMILIES[family], instruct=instruct)
            made.save_pretrained(folder)
            config = {
                "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": shape.vocab,
                "hidden_size": shape.hidden, "intermediate_size": shape.intermediate,
                "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads,
                "num_key_value_heads": shape.kv_heads, "max_position_embeddings": 4096,
                "tie_word_embeddings": shape.tied, "eos_token_id": made.eos_token_id,
            }  # fmt: skip
            (folder / "config.json").write_text(json.dumps(config))
        assert all(any(fnmatch(p.name, w) for w in files.WITHOUT_WEIGHTS) for p in folder.iterdir())
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.setattr("harness.data.unreached", lambda url: "")
    return asked


def pairs():
    """(name, recipe) of every shipped recipe and of every pair of a shipped paper that names models of the hub."""
    found = [(name, recipe.load(name)) for name in REAL]
    for file in sorted(resources.files("harness.papers").iterdir(), key=lambda f: f.name):
        if file.name.endswith(".toml"):
            paper = spec.load(file.name.removesuffix(".toml"), Path("nowhere"))
            found += [(f"{paper.name}:{pair.name}", pair.recipe()) for pair in paper.pairs]
    papers = [(name, r) for name, r in found if kind(r.models.student) and kind(r.models.teacher) and ":" in name]
    return [(name, r) for name, r in found if name in REAL] + papers


@pytest.mark.parametrize("name, chosen", pairs(), ids=lambda value: value if isinstance(value, str) else "")
def test_the_pair_of_a_recipe_agrees_before_weights_are_fetched(hub, name, chosen):
    methods = [plan.configured(method, chosen, {})[0] for method in ("kd", "gkd", "vcrd", "sft")]
    found = plan.judged(chosen, methods)
    assert not found.warnings and found.words
    tokenizer = files.load_tokenizer(found.student)
    family, instruct = kind(chosen.models.teacher)
    assert instruct and tokenizer.eos_token == FAMILIES[family].end
    assert tokenizer.chat_template == FAMILIES[family].template
    assert hub and all(patterns for *_, patterns in hub)  # of every model only the small files were asked for


def test_a_dry_run_of_a_paper_judges_its_pairs(hub, tmp_path, capsys, monkeypatch):
    words = ["reproduce", "vcrd", "--dry-run", "--results", str(tmp_path / "r")]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert said.count("  pair: ") == said.count("pair: student and teacher use one format (teacher)") > 1
    assert "would be refused" not in said and "no weights were downloaded" in said
    assert hub and all(patterns for *_, patterns in hub)

    # Without a hub the pairs are not judged, and the hub is asked once.
    asked = []

    def absent(repository, **_):
        asked.append(repository)
        raise OSError("no route to the hub")

    monkeypatch.setattr("huggingface_hub.snapshot_download", absent)
    assert main(words) == 0
    assert "pair: not judged: model Qwen/" in capsys.readouterr().out and len(asked) == 1


def test_a_dry_run_of_a_paper_says_why_a_pair_would_be_refused(hub, tmp_path, capsys, monkeypatch):
    family = FAMILIES["qwen2.5-math"]
    monkeypatch.setitem(FAMILIES, "qwen2.5-math", replace(family, template="{{ messages }"))
    assert main(["reproduce", "vcrd", "--dry-run", "--only", "amc23", "--results", str(tmp_path / "r")]) == 0
    assert "pair: would be refused: the chat template (teacher) cannot render" in capsys.readouterr().out


def test_a_revision_is_asked_for(hub):
    files.locate("Qwen/Qwen2.5-0.5B@0123456789abcdef", weights=False)
    assert hub == [("Qwen/Qwen2.5-0.5B", "0123456789abcdef", tuple(files.WITHOUT_WEIGHTS))]


@pytest.mark.parametrize("name", REAL)
def test_a_recipe_names_commits(name):
    """Of models and data: what it trains is the same next year."""
    chosen = recipe.load(name)
    for model in (chosen.models.student, chosen.models.teacher):
        assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", model) and published(model)
    for rows in (chosen.data.prompts, chosen.data.labelled):
        assert re.search(r",revision=[0-9a-f]{40}\b", rows)


@pytest.mark.parametrize("name", REAL)
def test_a_dry_run_of_a_recipe_needs_no_weights(hub, name, prompts_file, tmp_path, capsys):
    """As it stands but for the data, which is that of a hub, too."""
    data = [word for key in ("prompts", "labelled") for word in ("--set", f"data.{key}={prompts_file}")]
    data += [w for key in ("prompt", "response", "messages") for w in ("--set", f"data.{key}_field=none")]
    words = ["run", "-m", "kd,gkd", "-t", "gsm8k@micro", "--recipe", name, *data, "--results", str(tmp_path / "r")]
    assert main([*words, "--dry-run", "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "student and teacher use one format (teacher)" in said and "to do" in said
    assert "memory" in said


@pytest.mark.parametrize("name", REAL)
def test_what_a_recipe_says_of_its_cost_is_the_estimate(name):
    text = (resources.files("harness.recipes") / f"{name}.toml").read_text("utf-8")
    told = re.search(
        r"# gkd: about ([\d.]+) GB and ([\d.]+) hours on one (\S+), with prompts of (\d+) and answers of (\d+)", text
    )
    assert told, f"{name}.toml says what it costs"
    chosen = recipe.load(name)
    method, *_ = plan.configured("gkd", chosen, {})
    rows = {"maths": 7473, "code": 2000, "instruct": 10000}[name]
    memory, hours, device, prompt, answer = told.groups()
    shapes = [PUBLISHED[model.partition("@")[0]] for model in (chosen.models.student, chosen.models.teacher)]
    usual = work(method, chosen, *shapes, rows, (int(prompt), int(answer)))
    longest = replace(usual, response_tokens=chosen.training.max_tokens - int(prompt))
    assert not excess(longest, DEVICES[device].memory)
    assert float(memory) == pytest.approx(max(s.memory for s in stages_of(longest, DEVICES[device])) / 1e9, rel=0.02)
    assert float(hours) == pytest.approx(sum(s.seconds for s in stages_of(usual, DEVICES[device])) / 3600, rel=0.03)


def test_a_pair_of_two_families_is_refused_before_weights_are_fetched(hub):
    chosen = recipe.load("maths")
    mixed = replace(chosen, models=replace(chosen.models, teacher="deepseek-ai/deepseek-coder-6.7b-instruct"))
    with pytest.raises(BadInput, match="do not match: "):
        plan.judged(mixed, [plan.configured("kd", mixed, {})[0]])
    assert all(patterns for *_, patterns in hub)
