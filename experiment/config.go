package experiment

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"mlpfusion/internal/choice"
	"mlpfusion/internal/disk"
	"mlpfusion/model"
	"mlpfusion/task"
	"mlpfusion/train"
)

// Config is a comparison: the axes, whose product are the cells, and what all
// cells have in common.
type Config struct {
	Axes     `yaml:",inline"`
	Settings `yaml:",inline"`
}

// Axes are what differs between cells.
type Axes struct {
	Methods []string  `yaml:"methods" json:"methods"` // see ParseVariant
	Tasks   []string  `yaml:"tasks" json:"tasks"`
	Widths  []int     `yaml:"widths" json:"widths"`           // hidden units of each fused block
	Ratios  []float64 `yaml:"ratios" json:"ratios,omitempty"` // shares of the original's units, beside Widths
	Seeds   []uint64  `yaml:"seeds" json:"seeds"`
	LRs     []float64 `yaml:"lrs" json:"lrs"`
	PModes  []string  `yaml:"p_modes" json:"p_modes"` // see PModes; of methods that have a P
	Tune    []int     `yaml:"tune" json:"tune"`       // epochs of layer-wise tuning
}

// Settings are what all cells have in common.
type Settings struct {
	Model     string         `yaml:"model" json:"model"`
	Data      string         `yaml:"data" json:"data"`           // folder of the tasks' folders
	Text      string         `yaml:"text" json:"text,omitempty"` // columns of the data, of the task text
	Pair      string         `yaml:"text_pair" json:"text_pair,omitempty"`
	Label     string         `yaml:"label" json:"label,omitempty"`
	Layers    string         `yaml:"layers" json:"layers"` // of convert.Plan
	TrainRows int            `yaml:"train_rows" json:"train_rows"`
	DevRows   int            `yaml:"dev_rows" json:"dev_rows"`
	MaxLength int            `yaml:"max_length" json:"max_length"`
	Epochs    int            `yaml:"epochs" json:"epochs"` // 0: cells are measured and not fine-tuned
	Batch     int            `yaml:"batch" json:"batch"`
	Schedule  train.Schedule `yaml:"schedule" json:"schedule"`
	Warmup    float64        `yaml:"warmup" json:"warmup"`
	Optimizer string         `yaml:"optimizer" json:"optimizer"` // adamw or sgd; also says which tangent kernel
	Precision string         `yaml:"precision" json:"precision"` // fp32 or bf16, of training
	EvalEvery int            `yaml:"eval_every" json:"eval_every"`
	Int8      bool           `yaml:"int8" json:"int8,omitempty"` // also score with the fused blocks rounded to int8
	// NTKRows dev texts go into the tangent kernels (0: none are computed),
	// OutputRows into the output error, CalibrationRows training texts into the
	// methods that look at inputs, StepRows into the fit of step sizes.
	NTKRows         int `yaml:"ntk_rows" json:"ntk_rows"`
	OutputRows      int `yaml:"output_rows" json:"output_rows"`
	CalibrationRows int `yaml:"calibration_rows" json:"calibration_rows"`
	StepRows        int `yaml:"step_rows" json:"step_rows"`
}

// Defaults is a comparison of the paper's method with its upper reference.
func Defaults() Config {
	return Config{
		Axes{Methods: []string{"none", "fusion"}, Seeds: []uint64{1, 2, 3}, LRs: []float64{2e-5}, PModes: []string{Keep}, Tune: []int{0}},
		Settings{MaxLength: 128, Epochs: 3, Batch: 32, Schedule: train.Linear, Warmup: 0.06, Optimizer: "adamw", Precision: "fp32",
			OutputRows: 256, CalibrationRows: 1200, StepRows: 96},
	}
}

// ReadConfig reads a YAML file over the values in c. Unknown keys are refused
// with their line.
func (c *Config) ReadConfig(path string) error {
	text, err := disk.ReadFile(path)
	if err != nil {
		return err
	}
	var file yaml.Node
	if err := yaml.Unmarshal(text, &file); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if len(file.Content) == 0 {
		return fmt.Errorf("%s: expected keys such as methods and tasks, found an empty file", path)
	}
	top := file.Content[0]
	if top.Kind != yaml.MappingNode {
		return fmt.Errorf("%s: line %d: expected keys such as methods and tasks, found a list or a word", path, top.Line)
	}
	keys, fields := c.fields()
	seen := map[string]int{}
	for i := 0; i < len(top.Content); i += 2 {
		k, v := top.Content[i], top.Content[i+1]
		field := fields[k.Value]
		switch {
		case field == nil:
			return fmt.Errorf("%s: line %d: %w", path, k.Line, choice.Unknown(k.Value, keys))
		case seen[k.Value] > 0:
			return fmt.Errorf("%s: line %d: expected the key %s once, found it in line %d too", path, k.Line, k.Value, seen[k.Value])
		}
		seen[k.Value] = k.Line
		if err := v.Decode(field); err != nil {
			return fmt.Errorf("%s: line %d: %s: expected %s, found %s", path, v.Line, k.Value, valueText(reflect.TypeOf(field).Elem()), nodeText(v))
		}
	}
	return nil
}

// valueText says what a value of a type is in YAML.
func valueText(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Slice:
		return "a list, each " + valueText(t.Elem())
	case reflect.Int:
		return "a whole number"
	case reflect.Uint64:
		return "a whole number of at least 0"
	case reflect.Float64:
		return "a number"
	case reflect.Bool:
		return "true or false"
	}
	return "a word"
}

// nodeText says what stands in a YAML file.
func nodeText(n *yaml.Node) string {
	switch n.Kind {
	case yaml.ScalarNode:
		return strconv.Quote(n.Value)
	case yaml.MappingNode:
		return "keys"
	}
	var items []string
	for _, item := range n.Content {
		items = append(items, nodeText(item))
	}
	return "[" + strings.Join(items, ", ") + "]"
}

// differences lists the settings of a that b has otherwise, and b's values of
// them.
func differences(a, b Settings) (of, other string) {
	var list [2][]string
	x, y := reflect.ValueOf(a), reflect.ValueOf(b)
	for i := range x.NumField() {
		if key := x.Type().Field(i).Tag.Get("yaml"); x.Field(i).Interface() != y.Field(i).Interface() {
			for side, v := range []reflect.Value{x.Field(i), y.Field(i)} {
				format := "%s: %v"
				if v.Kind() == reflect.String {
					format = "%s: %q"
				}
				list[side] = append(list[side], fmt.Sprintf(format, key, v))
			}
		}
	}
	return strings.Join(list[0], ", "), strings.Join(list[1], ", ")
}

// fields are the keys of the YAML file and pointers to what they set.
func (c *Config) fields() (keys []string, fields map[string]any) {
	fields = map[string]any{}
	for _, part := range []reflect.Value{reflect.ValueOf(&c.Axes).Elem(), reflect.ValueOf(&c.Settings).Elem()} {
		for i := range part.NumField() {
			key := part.Type().Field(i).Tag.Get("yaml")
			keys = append(keys, key)
			fields[key] = part.Field(i).Addr().Interface()
		}
	}
	return keys, fields
}

// Check tells what is wrong with a comparison: the key, what was expected and
// what was found.
func (c *Config) Check() error {
	for _, axis := range []struct {
		key string
		n   int
	}{{"methods", len(c.Methods)}, {"tasks", len(c.Tasks)}, {"seeds", len(c.Seeds)}, {"lrs", len(c.LRs)}, {"p_modes", len(c.PModes)}, {"tune", len(c.Tune)}} {
		if axis.n == 0 {
			return fmt.Errorf("%s: expected at least one, found none", axis.key)
		}
	}
	for _, name := range c.Methods {
		v, err := ParseVariant(name)
		if err != nil {
			return fmt.Errorf("methods: %w", err)
		}
		if v.LoRA > 0 && slices.Max(c.Tune) > 0 {
			return fmt.Errorf("tune: expected 0 with an adapter (%s), found %d", name, slices.Max(c.Tune))
		}
	}
	for _, r := range c.Ratios {
		if !(r > 0 && r <= 1) {
			return fmt.Errorf("ratios: expected numbers above 0 and at most 1, found %g", r)
		}
	}
	for _, name := range c.Tasks {
		if _, err := task.Lookup(name); err != nil {
			return err
		}
	}
	for _, m := range c.PModes {
		if !slices.Contains(pModeNames(), m) {
			return fmt.Errorf("p_modes: %w", choice.Unknown(m, pModeNames()))
		}
	}
	for _, n := range c.Tune {
		if n < 0 {
			return fmt.Errorf("tune: expected numbers of epochs, found %d", n)
		}
	}
	for _, lr := range c.LRs {
		if !(lr > 0) {
			return fmt.Errorf("lrs: expected numbers above 0, found %g", lr)
		}
	}
	for _, w := range c.Widths {
		if w < 1 {
			return fmt.Errorf("widths: expected at least 1 hidden unit, found %d", w)
		}
	}
	if _, err := train.ParseSchedule(string(c.Schedule)); err != nil {
		return err
	}
	if _, err := train.ParseOptimizer(c.Optimizer); err != nil {
		return err
	}
	if c.Precision != "fp32" && c.Precision != "bf16" {
		return fmt.Errorf("precision: expected fp32 or bf16, found %q", c.Precision)
	}
	for _, n := range []struct {
		key   string
		found int
		least int
	}{{"epochs", c.Epochs, 0}, {"batch", c.Batch, 1}, {"max_length", c.MaxLength, 4}, {"train_rows", c.TrainRows, 0}, {"dev_rows", c.DevRows, 0}, {"eval_every", c.EvalEvery, 0},
		{"ntk_rows", c.NTKRows, 0}, {"output_rows", c.OutputRows, 1}, {"calibration_rows", c.CalibrationRows, 1}, {"step_rows", c.StepRows, 2}} {
		if n.found < n.least {
			return fmt.Errorf("%s: expected at least %d, found %d", n.key, n.least, n.found)
		}
	}
	if !(c.Warmup >= 0 && c.Warmup <= 1) {
		return fmt.Errorf("warmup: expected a share from 0 to 1, found %g", c.Warmup)
	}
	for _, path := range []struct{ key, found string }{{"model", c.Model}, {"data", c.Data}} {
		if path.found == "" {
			return fmt.Errorf("%s: expected a folder, found none", path.key)
		}
	}
	return nil
}

// resolve turns ratios into widths of a model; with neither it is a quarter of the units.
func (c *Config) resolve(m *model.Config) {
	if len(c.Widths) == 0 && len(c.Ratios) == 0 {
		c.Ratios = []float64{0.25}
	}
	for _, r := range c.Ratios {
		if w := m.Units(r); !slices.Contains(c.Widths, w) {
			c.Widths = append(c.Widths, w)
		}
	}
	c.Ratios = nil
}

// Key says which cell.
type Key struct {
	Task   string  `json:"task"`
	Method string  `json:"method"` // with its variants
	Width  int     `json:"width"`  // 0: not compressed
	PMode  string  `json:"p_mode"`
	Tune   int     `json:"tune"` // epochs
	LR     float64 `json:"lr"`
	Seed   uint64  `json:"seed"`
}

// ID is the cell's name and that of its file.
func (k Key) ID() string {
	return strings.Join([]string{k.Task, k.Method, strconv.Itoa(k.Width), k.PMode, "tune" + strconv.Itoa(k.Tune), "lr" + strconv.FormatFloat(k.LR, 'g', -1, 64), "seed" + strconv.FormatUint(k.Seed, 10)}, "_")
}

func (k Key) String() string {
	s := k.Task + " " + k.Method
	if k.Width > 0 {
		s += " " + strconv.Itoa(k.Width)
	}
	if k.PMode != Keep {
		s += " P " + k.PMode
	}
	if k.Tune > 0 {
		s += fmt.Sprintf(" tune %d", k.Tune)
	}
	return s + fmt.Sprintf(" lr %g seed %d", k.LR, k.Seed)
}

// Cells are the product of the axes, one seed's whole table before the next
// seed's. The original has no width, no P and nothing to tune; only methods
// with a P have several modes of it.
func (c *Config) Cells() []Key {
	var keys []Key
	seen := map[Key]bool{}
	for _, name := range c.Tasks {
		spec, _ := task.Lookup(name)
		for _, seed := range c.Seeds {
			for _, lr := range c.LRs {
				for _, method := range c.Methods {
					v, _ := ParseVariant(method)
					for _, k := range v.cells(c.Axes) {
						k.Task, k.Method, k.Seed, k.LR = spec.Name, v.Name, seed, lr
						if !seen[k] {
							seen[k] = true
							keys = append(keys, k)
						}
					}
				}
			}
		}
	}
	return keys
}

func (v *Variant) cells(a Axes) []Key {
	if v.Method.Name == original {
		return []Key{{PMode: Keep}}
	}
	var keys []Key
	for _, w := range a.Widths {
		for _, mode := range a.PModes {
			if mode != Keep && !v.hasP() {
				continue
			}
			for _, t := range a.Tune {
				keys = append(keys, Key{Width: w, PMode: mode, Tune: t})
			}
		}
	}
	return keys
}

// Override takes from other the values of the keys that changed says.
func (c *Config) Override(other *Config, changed func(key string) bool) {
	for _, pair := range [][2]reflect.Value{
		{reflect.ValueOf(&c.Axes).Elem(), reflect.ValueOf(other.Axes)}, {reflect.ValueOf(&c.Settings).Elem(), reflect.ValueOf(other.Settings)},
	} {
		for i := range pair[0].NumField() {
			if changed(pair[0].Type().Field(i).Tag.Get("yaml")) {
				pair[0].Field(i).Set(pair[1].Field(i))
			}
		}
	}
}
