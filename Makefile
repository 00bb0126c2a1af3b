# The targets; `make` lists them.
GO      ?= go
PYTHON  ?= python3
CACHE   ?= $(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME),$(HOME)/.cache)/mlpfusion
BIN     := bin/mlpfusion
# The model of `make demo`, for tests and benchmarks on real weights.
MINILM  := $(CACHE)/demo/all-MiniLM-L6-v2
SMOLLM2 := $(CACHE)/demo/SmolLM2-135M-Instruct
# The virtual environment of the peers, one for each requirements file.
REQS    := bench/peers/requirements.txt
VENV    := $(CACHE)/peers-$(shell sha256sum $(REQS) 2>/dev/null | cut -c1-12)
PEER    := $(VENV)/bin/python
# The scorers of generated text have one of their own.
SCORERS := $(CACHE)/scorers-$(shell sha256sum bench/peers/metrics.txt 2>/dev/null | cut -c1-12)
SCORER  := $(SCORERS)/bin/python

# What the tests of the Python package and of adapters need beside the peers.
PYTEST  := $(CACHE)/pytest-$(shell cat $(REQS) python/requirements.txt 2>/dev/null | sha256sum | cut -c1-12)

# sentence-transformers for the peers' Python.
SENTENCES := $(CACHE)/sentences-$(shell cat $(REQS) bench/peers/sentences.txt 2>/dev/null | sha256sum | cut -c1-12)

# llama.cpp for the peers' Python: packages, and the script that converts checkpoints.
LLAMA   := $(CACHE)/llama-$(shell cat $(REQS) bench/peers/llama.txt 2>/dev/null | sha256sum | cut -c1-12)

# The linters, at the versions that CI runs.
TOOLS   := $(CACHE)/tools
LINTER  := $(TOOLS)/golangci-lint-v2.15.0
VULN    := $(TOOLS)/govulncheck-v1.9.0
# What writes the list of a release's modules.
SBOM    := $(TOOLS)/cyclonedx-gomod-v1.9.0

# What `make wheel` makes wheels for, and `make dist` archives.
PLATFORMS ?= linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64 windows/arm64

# What `make image` builds with.
BUILDER ?= $(firstword $(foreach b,buildah podman docker,$(if $(shell command -v $(b)),$(b))))

# What the program is made to run on.
SYSTEMS := linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64 windows/arm64 freebsd/amd64

# How often `make torture` does each thing to each command.
TIMES   ?= 40

# What `make profile` profiles: minilm or bert-base, sst2 or dense, fp32 or bf16.
STEP    ?= minilm/sst2/fp32

.PHONY: help build demo test test-noasm test-arm64 vet-platforms test-windows test-race test-peers test-python test-llama wheel dist image fuzz bench bench-decoder profile generate lint clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' Makefile | awk -F':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

build: ## build bin/mlpfusion, one static file
	CGO_ENABLED=0 $(GO) build -trimpath -o $(BIN) ./cmd/mlpfusion

demo: build ## a real model fused and fine-tuned on real reviews, in about a minute
	@$(BIN) demo

test: ## the test suite; needs Go only
	$(GO) vet ./...
	$(GO) test ./...
	bash scripts/fuzz.sh 3s

test-noasm: ## the packages' tests on the portable kernels, as machines without assembly run them
	$(GO) vet -tags noasm ./...
	$(GO) test -tags noasm $$($(GO) list ./... | grep -v /cmd/)

# An arm64 processor, emulated: with all extensions, and an old one with none.
ARM64   := qemu-aarch64-static -cpu

test-arm64: ## arm64's kernels, emulated; needs qemu-user-static
	GOARCH=arm64 $(GO) test -exec "$(ARM64) max" ./kernel
	GOARCH=arm64 $(GO) test -exec "$(ARM64) cortex-a72" -run 'TestGemmEpilogues|TestGemmInt8|TestKernels' ./kernel

vet-platforms: ## every package and its tests compile for each system and processor
	@for p in $(SYSTEMS); do echo "vet $$p" && GOOS=$${p%/*} GOARCH=$${p#*/} $(GO) vet ./... || exit 1; done

test-windows: ## the command's scripts as a Windows program; needs wine64 (SCRIPTS=… for some)
	bash scripts/windows/test.sh "$(SCRIPTS)"

test-race: ## the race detector on the pool and on what runs on it
	$(GO) test -race -run 'Pool|GemmLarge|GemmGroup|GemmBlocks' ./kernel
	$(GO) test -race ./nn

test-peers: $(PEER) $(PYTEST) $(SCORER) $(SENTENCES) $(MINILM) ## remake the goldens and compare live with PyTorch, transformers, PEFT and scikit-learn
	PYTHONPATH=$(PYTEST) bash scripts/test-peers.sh $(PEER) $(MINILM) $(SCORER) $(SENTENCES)

test-python: build $(PEER) $(PYTEST) $(SENTENCES) $(MINILM) ## the Python package: loading, ten steps beside the engine's, several processes, examples, wheel, types, lint
	$(PYTEST)/bin/ruff check python
	cd python && PYTHONPATH=$(PYTEST) $(PEER) -m mypy --cache-dir /dev/null
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONPATH=$(PYTEST):$(CURDIR)/python:$(SENTENCES) $(PEER) -m pytest -c python/pyproject.toml python/tests

test-llama: $(PEER) $(LLAMA) $(SMOLLM2) ## exports in llama.cpp: converted with its script, the same tokens (builds it once, 20 minutes)
	bash scripts/test-llama.sh $(PEER) $(LLAMA) $(SMOLLM2)

wheel: ## wheels of the Python package with the command in them, in bin/ (PLATFORMS=… for some)
	@for p in $(PLATFORMS); do \
		CGO_ENABLED=0 GOOS=$${p%/*} GOARCH=$${p#*/} $(GO) build -trimpath -ldflags="-s -w -buildid=" -o bin/wheel ./cmd/mlpfusion && \
		$(PYTHON) python/wheel.py $$p bin/wheel bin || exit 1; \
	done; rm bin/wheel

dist: $(SBOM) ## archives for release in bin/dist: command, manual, completions, licences; sums and SBOMs (PLATFORMS=… for some)
	$(PYTHON) scripts/dist.py $(SBOM) bin/dist $(PLATFORMS)

image: build ## a container image of the command alone, with the builder that is here (BUILDER=…)
	@test -n "$(BUILDER)" || { echo "image: expected buildah, podman or docker, found none"; exit 1; }
	$(BUILDER) build --tag mlpfusion --file Containerfile .

fuzz: ## fuzz the readers of untrusted files, a minute each
	bash scripts/fuzz.sh 60s

torture: ## kill every command at random, let its file operations fail, and see it go on; half an hour (TIMES=… for some)
	nice -n 15 $(GO) test ./cmd/mlpfusion -run '^TestTorture$$' -v -count=1 -timeout 3h -torture $(TIMES) $(if $(INTO),-torture-into $(CURDIR)/$(INTO))

bench: $(PEER) $(MINILM) ## measure beside the peers; writes bench/results (ROWS=… for some)
	bash scripts/bench.sh $(PEER) $(MINILM) "$(ROWS)"

bench-decoder: $(PEER) $(LLAMA) $(SMOLLM2) ## measure SmolLM2 beside transformers and llama.cpp (ROWS=… for some)
	bash scripts/bench-decoder.sh $(PEER) $(LLAMA) $(SMOLLM2) "$(ROWS)"

profile: $(MINILM) ## pprof of a training step: step.prof (STEP=model/batches/precision)
	MLPFUSION_MINILM=$(MINILM) $(GO) test ./bench -run '^$$' -bench 'Step/$(STEP)$$' -benchtime 5s -args -profile $(CURDIR)/step.prof

generate: ## rebuild the assembly from its generators
	$(GO) generate ./kernel

lint: $(LINTER) $(VULN) ## go vet, gofmt, golangci-lint, known faults of dependencies, and tests that NaN would pass
	$(GO) vet ./...
	$(GO) build -o bin/nancheck ./internal/nancheck
	$(GO) vet -vettool=$(CURDIR)/bin/nancheck ./...
	test -z "$$(gofmt -l .)"
	$(LINTER) run
	@$(VULN) ./... || { [ $$? -ne 1 ] && exit 1; echo "govulncheck: the list of known faults could not be read, nothing was checked"; }

clean: ## remove what was built
	rm -rf bin

$(LINTER):
	GOBIN=$(TOOLS) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
	mv $(TOOLS)/golangci-lint $@

$(VULN):
	GOBIN=$(TOOLS) $(GO) install golang.org/x/vuln/cmd/govulncheck@v1.9.0
	mv $(TOOLS)/govulncheck $@

$(SBOM):
	GOBIN=$(TOOLS) $(GO) install github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.9.0
	mv $(TOOLS)/cyclonedx-gomod $@

$(PEER): | $(REQS)
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r $(REQS) || { rm -rf $(VENV); exit 1; }

$(SENTENCES): bench/peers/sentences.txt | $(PEER)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps --target $@ -r $< || { rm -rf $@; exit 1; }

$(PYTEST): python/requirements.txt | $(PEER)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps --target $@ -r $< || { rm -rf $@; exit 1; }

$(LLAMA): bench/peers/llama.txt | $(PEER)
	bash scripts/llama.sh $(PEER) $@

$(SCORER): | bench/peers/metrics.txt
	$(PYTHON) -m venv $(SCORERS)
	$(SCORERS)/bin/pip install --quiet --disable-pip-version-check -r bench/peers/metrics.txt || { rm -rf $(SCORERS); exit 1; }

$(MINILM): | build
	$(BIN) demo --fetch

$(SMOLLM2): | build
	$(BIN) demo --llm --fetch
