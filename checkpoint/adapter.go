package checkpoint

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Adapter is a low-rank adapter (LoRA, arXiv 2106.09685) as PEFT keeps it: beside the
// matrix W of each module that it adapts a path scale·B·A with A (rank × inputs) and
// B (outputs × rank), and modules that are trained whole.
//
// Modules have the names that they have in transformers: a tensor's without its .weight.
type Adapter struct {
	Base       string    // the model that it is for, as its maker named it
	Rank       int       // of paths that no pattern gives another
	Alpha      float64   // the numerator of their scale
	Dropout    float64   // of what the paths read, in training
	RSLoRA     bool      // the scale is Alpha/√rank (arXiv 2312.03732), not Alpha/rank
	Targets    []string  // the modules that it adapts, or what their names end with
	Save       []string  // the modules that are trained whole, likewise
	Ranks      []Pattern // other ranks
	Alphas     []Pattern // other numerators
	Transposed bool      // modules keep their matrices transposed (Conv1D)
	Task       string    // as PEFT names it, such as CAUSAL_LM

	Path    string  // its folder; "" while it is new
	Weights *Reader // nil while it is new
	// Config is the configuration of the model with the head that was trained; nil
	// where PEFT alone wrote the folder.
	Config *Config
	Carry  []string // names of the files that a model made of it takes along
}

// Pattern is a value for the modules that a regular expression matches, or for those
// whose names end with what it matches.
type Pattern struct {
	Key   string
	Value float64
	re    *regexp.Regexp
}

const (
	adapterConfig  = "adapter_config.json"
	adapterWeights = "adapter_model.safetensors"
	adapterPrefix  = "base_model.model." // begins the names of the tensors
)

// IsAdapter tells whether a folder holds an adapter and no model.
func IsAdapter(dir string) bool {
	return exists(filepath.Join(dir, adapterConfig)) && !exists(filepath.Join(dir, weightsFile)) && !exists(filepath.Join(dir, indexFile))
}

// OpenAdapter opens an adapter's folder. One that is not LoRA as Adapter describes it is
// refused. The caller ends with Close.
func OpenAdapter(dir string) (*Adapter, error) {
	path := filepath.Join(dir, adapterConfig)
	if !exists(path) {
		return nil, fmt.Errorf("%s: expected the folder of an adapter, with an %s, found none", dir, adapterConfig)
	}
	config, err := ReadConfig(path)
	if err != nil {
		return nil, err
	}
	a := &Adapter{Path: dir}
	if err := a.read(config); err != nil {
		return nil, err
	}
	if path := configPath(dir); exists(path) {
		if a.Config, err = ReadConfig(path); err != nil {
			return nil, err
		}
	}
	for _, name := range carried {
		if exists(filepath.Join(dir, name)) {
			a.Carry = append(a.Carry, name)
		}
	}
	path = filepath.Join(dir, adapterWeights)
	if !exists(path) {
		return nil, fmt.Errorf("%s: expected an %s, found none", dir, adapterWeights)
	}
	if a.Weights, err = Open(path); err != nil {
		return nil, err
	}
	if err := a.findTargets(); err != nil {
		_ = a.Weights.Close() // the first error says it
		return nil, err
	}
	return a, nil
}

// Close closes the weights; of nil it does nothing.
func (a *Adapter) Close() {
	if a != nil && a.Weights != nil {
		_ = a.Weights.Close() // only read
	}
}

// allowed are the values of keys that ask for more than Adapter can say: those that do
// not. Another init_lora_weights begins from another base.
var allowed = func() map[string][]string {
	m := map[string][]string{"bias": {`"none"`}, "init_lora_weights": {`true`, `false`, `"gaussian"`, `"eva"`, `"orthogonal"`}}
	for _, key := range []string{"use_dora", "use_qalora", "use_bdlora", "lora_bias", "layer_replication", "trainable_token_indices", "target_parameters",
		"alora_invocation_tokens", "arrow_config", "kasa_config", "monteclora_config", "velora_config"} {
		m[key] = []string{"false", "[]", "{}"}
	}
	return m
}()

// read reads adapter_config.json.
func (a *Adapter) read(c *Config) error {
	kind, err := c.String("peft_type")
	if err != nil {
		return err
	}
	if kind != "LORA" {
		return fmt.Errorf("%s: key \"peft_type\": expected LORA, found %s", c.path, kind)
	}
	for _, key := range c.Keys() {
		raw := string(oneLine(c.Raw(key)))
		if values, known := allowed[key]; known && c.Has(key) && !slices.Contains(values, raw) {
			return fmt.Errorf("%s: key %q: expected an adapter that adds products of two matrices to frozen ones, and nothing else, found %s", c.path, key, shown([]byte(raw)))
		}
	}
	a.Alpha = 8 // PEFT's default
	for key, v := range map[string]any{
		"r": &a.Rank, "lora_alpha": &a.Alpha, "lora_dropout": &a.Dropout, "use_rslora": &a.RSLoRA, "base_model_name_or_path": &a.Base,
		"task_type": &a.Task, "modules_to_save": &a.Save, "fan_in_fan_out": &a.Transposed,
	} {
		if !c.Has(key) {
			continue
		}
		if err := c.Get(key, v); err != nil {
			return err
		}
	}
	switch {
	case a.Rank < 1 || a.Rank > 1<<20:
		return fmt.Errorf("%s: key \"r\": expected a rank of at least 1, found %d", c.path, a.Rank)
	case !(a.Dropout >= 0 && a.Dropout < 1):
		return fmt.Errorf("%s: key \"lora_dropout\": expected a probability below 1, found %g", c.path, a.Dropout)
	}
	if a.Ranks, err = readPatterns(c, "rank_pattern", 1); err != nil {
		return err
	}
	a.Alphas, err = readPatterns(c, "alpha_pattern", math.Inf(-1))
	return err
}

// readPatterns reads an object of numbers by regular expressions; the first that matches
// counts.
func readPatterns(c *Config, key string, least float64) ([]Pattern, error) {
	if !c.Has(key) {
		return nil, nil
	}
	fields, err := parseObject(c.Raw(key))
	if err != nil {
		return nil, fmt.Errorf("%s: key %q: %w", c.path, key, err)
	}
	var list []Pattern
	for _, f := range fields {
		p := Pattern{Key: f.key}
		if json.Unmarshal(f.raw, &p.Value) != nil || !(p.Value >= least) {
			return nil, fmt.Errorf("%s: key %q: %s: expected a number, found %s", c.path, key, f.key, shown(f.raw))
		}
		if p.re, err = regexp.Compile(`^(.*\.)?(` + f.key + `)$`); err != nil {
			return nil, fmt.Errorf("%s: key %q: expected regular expressions, found %s", c.path, key, shown([]byte(f.key)))
		}
		list = append(list, p)
	}
	return list, nil
}

// findTargets lists the modules that the file adapts. What target_modules says of them
// may be a pattern in Python's language.
func (a *Adapter) findTargets() error {
	for _, name := range a.Weights.Names() {
		tensor, ours := strings.CutPrefix(name, adapterPrefix)
		module, first := strings.CutSuffix(tensor, loraA)
		other, second := strings.CutSuffix(tensor, loraB)
		wanted := ""
		switch {
		case ours && first:
			a.Targets, wanted = append(a.Targets, module), module+loraB
		case ours && second:
			wanted = other + loraA
		case ours && a.Saves(tensor):
			continue
		default:
			return fmt.Errorf("%s: %s: expected the matrices lora_A and lora_B of modules, and tensors of modules_to_save, found this", a.Path, name)
		}
		if _, ok := a.Tensor(wanted); !ok {
			return fmt.Errorf("%s: %s: expected the adapter's other matrix beside it, found none", a.Path, name)
		}
	}
	if len(a.Targets) == 0 {
		return fmt.Errorf("%s: expected matrices lora_A and lora_B of at least one module, found none", a.Path)
	}
	return nil
}

const loraA, loraB = ".lora_A.weight", ".lora_B.weight"

// AdapterTensors are the names of a module's two matrices.
func AdapterTensors(module string) (a, b string) { return module + loraA, module + loraB }

// Tensor returns a tensor of the folder by its name in the model; there is none of nil.
func (a *Adapter) Tensor(name string) (*Tensor, bool) {
	if a == nil || a.Weights == nil {
		return nil, false
	}
	return a.Weights.Tensor(adapterPrefix + name)
}

// Names returns the names of the folder's tensors in the model.
func (a *Adapter) Names() []string {
	names := slices.Clone(a.Weights.Names())
	for i, name := range names {
		names[i] = strings.TrimPrefix(name, adapterPrefix)
	}
	return names
}

// Adapts tells whether a module has a path.
func (a *Adapter) Adapts(module string) bool {
	return !a.Saves(module) && slices.ContainsFunc(a.Targets, within(module))
}

// Saves tells whether a module is trained whole, as one of its own or as a part of one.
func (a *Adapter) Saves(module string) bool {
	for at := len(module); at > 0; at = strings.LastIndexByte(module[:at], '.') {
		if slices.ContainsFunc(a.Save, within(module[:at])) {
			return true
		}
	}
	return false
}

// within tells whether a module's name ends with another.
func within(module string) func(end string) bool {
	return func(end string) bool { return module == end || strings.HasSuffix(module, "."+end) }
}

// Of returns the rank of a module's path, and its scale.
func (a *Adapter) Of(module string) (rank int, scale float64) {
	value := func(list []Pattern, usual float64) float64 {
		for _, p := range list {
			if p.re.MatchString(module) {
				return p.Value
			}
		}
		return usual
	}
	rank = int(value(a.Ranks, float64(a.Rank)))
	alpha := value(a.Alphas, a.Alpha)
	if a.RSLoRA {
		return rank, alpha / math.Sqrt(float64(rank))
	}
	return rank, alpha / float64(rank)
}

// Write writes the adapter to a folder being made: specs announce its tensors, by their
// names in the model, and values gives what each holds.
func (a *Adapter) Write(out *Output, specs []Spec, values func(name string) []float32) error {
	named := slices.Clone(specs)
	for i := range named {
		named[i].Name = adapterPrefix + named[i].Name
	}
	w, err := CreateFile(filepath.Join(out.Dir, adapterWeights), named, map[string]string{"format": "pt"})
	if err != nil {
		return err
	}
	defer w.Abort()
	for i, s := range specs {
		if err := w.WriteFloat32(named[i].Name, values(s.Name)); err != nil {
			return err
		}
	}
	if err := w.Commit(); err != nil {
		return err
	}
	return WriteFileAtomic(filepath.Join(out.Dir, adapterConfig), a.json())
}

// json is adapter_config.json, its keys sorted as PEFT sorts them.
func (a *Adapter) json() []byte {
	patterns := func(list []Pattern) json.RawMessage {
		var b bytes.Buffer
		for i, p := range list {
			key, _ := encodeJSON(p.Key) // a string always encodes
			fmt.Fprintf(&b, "%s%s: %v", map[bool]string{true: ", "}[i > 0], key, p.Value)
		}
		return json.RawMessage("{" + b.String() + "}")
	}
	c := &Config{}
	for _, f := range []struct {
		key   string
		value any
	}{
		{"alpha_pattern", patterns(a.Alphas)}, {"base_model_name_or_path", a.Base}, {"bias", "none"}, {"fan_in_fan_out", a.Transposed},
		{"inference_mode", true}, {"init_lora_weights", true}, {"lora_alpha", a.Alpha}, {"lora_dropout", a.Dropout}, {"modules_to_save", a.Save},
		{"peft_type", "LORA"}, {"r", a.Rank}, {"rank_pattern", patterns(a.Ranks)}, {"target_modules", a.Targets}, {"task_type", a.Task},
		{"use_dora", false}, {"use_rslora", a.RSLoRA},
	} {
		_ = c.Set(f.key, f.value) // of such values all encode
	}
	return c.Bytes()
}
