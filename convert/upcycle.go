package convert

import (
	"context"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"mlpfusion/checkpoint"
	"mlpfusion/kernel"
)

// UpcycleOptions are the choices of Upcycle. Experts is required.
type UpcycleOptions struct {
	Experts int
	// Every is the distance of sparse layers in each stack; 0 means 2: layers 1,
	// 3, 5 …; 1 means all layers.
	Every int
	// Noise is the standard deviation of what is added to each expert's weights,
	// relative to the root mean square of the matrix.
	Noise float64
	// RouterStd is the standard deviation of the routers' weights. At 0 every
	// token goes to expert 0.
	RouterStd float64
	// Capacity is the most tokens of a sequence that an expert takes; 0 means
	// 512. Those beyond it pass the layer unchanged.
	Capacity  int
	Seed      uint64
	Overwrite bool
	Progress  func(done, total int) // of the tensors; may be nil
}

// Upcycled is what Upcycle made.
type Upcycled struct {
	Experts     int      `json:"experts"`
	Layers      []string `json:"layers"` // the sparse ones
	SourceBytes int64    `json:"source_bytes"`
	Bytes       int64    `json:"bytes"`
}

// t5MLP is the name of an MLP's matrix in a T5 checkpoint: the stack, the layer,
// the sublayer and the matrix.
var t5MLP = regexp.MustCompile(`^(?:transformer\.)?(encoder|decoder)\.block\.(\d+)\.layer\.(\d+)\.DenseReluDense\.(wi|wo)\.weight$`)

// Upcycle writes a Switch Transformer made of the T5 checkpoint in src (sparse
// upcycling, arXiv 2212.05055): in every o.Every-th layer the MLP becomes
// o.Experts copies of it behind a new router; all else is copied.
//
// A Switch layer multiplies its expert's output by the router's probability. The
// experts' wo is multiplied by their number E against it: a token whose expert
// has the probability q then gets E·q times the dense MLP's output. With the
// routers' weights 0 that is exactly the dense model (q is 1/E, and a power of
// two leaves no rounding), but all tokens go to the first expert; with small
// weights tokens spread and E·q is nearly 1.
func Upcycle(ctx context.Context, src *checkpoint.Dir, out string, o UpcycleOptions) (*Upcycled, error) {
	if o.Every == 0 {
		o.Every = 2
	}
	if o.Capacity == 0 {
		o.Capacity = 512
	}
	switch {
	case o.Experts < 2 || o.Experts > 1<<16:
		return nil, fmt.Errorf("experts: expected 2 to %d, found %d", 1<<16, o.Experts)
	case !(o.Noise >= 0) || math.IsInf(o.Noise, 0):
		return nil, fmt.Errorf("noise: expected a number of at least 0, found %g", o.Noise)
	case !(o.RouterStd >= 0) || math.IsInf(o.RouterStd, 0):
		return nil, fmt.Errorf("router-std: expected a number of at least 0, found %g", o.RouterStd)
	case o.Capacity < 1:
		return nil, fmt.Errorf("capacity: expected a number above 0, found %d", o.Capacity)
	}
	u := &upcycler{src: src, o: o}
	cfg, err := u.config()
	if err != nil {
		return nil, err
	}
	specs, err := u.specs()
	if err != nil {
		return nil, err
	}
	dst, err := checkpoint.CreateOutput(out, o.Overwrite)
	if err != nil {
		return nil, err
	}
	defer dst.Abort()
	w, err := checkpoint.Create(dst.Dir, specs, checkpoint.WriteOptions{MaxShardBytes: maxShard, Metadata: map[string]string{"format": "pt"}})
	if err != nil {
		return nil, err
	}
	defer w.Abort()
	if err := u.write(ctx, w); err != nil {
		return nil, err
	}
	if err := w.Commit(); err != nil {
		return nil, err
	}
	if err := dst.WriteConfig(cfg); err != nil {
		return nil, err
	}
	if err := dst.Carry(src.Path, src.Carry); err != nil {
		return nil, err
	}
	if err := dst.Commit(); err != nil {
		return nil, err
	}
	return &Upcycled{Experts: o.Experts, Layers: u.layers, SourceBytes: weightBytes(src.Path), Bytes: weightBytes(out)}, nil
}

type upcycler struct {
	src    *checkpoint.Dir
	o      UpcycleOptions
	layers []string // names of the sparse MLPs
	hidden int
}

// config returns the config.json of the Switch model.
func (u *upcycler) config() (*checkpoint.Config, error) {
	cfg := u.src.Config.Clone()
	if kind, err := cfg.String("model_type"); err != nil || kind != "t5" {
		return nil, fmt.Errorf("%s: config.json: model_type: expected \"t5\", found %s", u.src.Path, orNothing(cfg.Raw("model_type")))
	}
	if cfg.Has("mlpfusion") {
		return nil, fmt.Errorf("%s: config.json: expected an original model, found one whose blocks were compressed", u.src.Path)
	}
	act := "relu"
	if cfg.Has("feed_forward_proj") {
		var err error
		if act, err = cfg.String("feed_forward_proj"); err != nil {
			return nil, err
		}
	}
	if strings.HasPrefix(act, "gated") {
		return nil, fmt.Errorf("%s: config.json: feed_forward_proj: expected an MLP without a gate, as Switch Transformers has, found %q", u.src.Path, act)
	}
	encoder, err := cfg.Int("num_layers")
	if err != nil {
		return nil, err
	}
	decoder := encoder
	if cfg.Has("num_decoder_layers") {
		if decoder, err = cfg.Int("num_decoder_layers"); err != nil {
			return nil, err
		}
	}
	set := func(key string, v any) {
		if err == nil {
			err = cfg.Set(key, v)
		}
	}
	for _, stack := range []struct {
		key    string
		layers int
	}{{"num_sparse_encoder_layers", encoder}, {"num_sparse_decoder_layers", decoder}} {
		// transformers has the number of sparse layers and takes their distance
		// from it.
		sparse := stack.layers / u.o.Every
		if u.o.Every < 1 || sparse < 1 || stack.layers/sparse != u.o.Every {
			return nil, fmt.Errorf("every: expected a distance that a number of sparse layers among %d gives (%d divided by 1, 2, …, rounded down), found %d", stack.layers, stack.layers, u.o.Every)
		}
		set(stack.key, sparse)
	}
	for _, key := range []string{"feed_forward_proj", "is_gated_act", "_name_or_path", "scale_decoder_outputs"} {
		cfg.Delete(key)
	}
	set("model_type", "switch_transformers")
	architecture := "SwitchTransformersForConditionalGeneration"
	if slices.ContainsFunc(u.src.Weights.Names(), func(name string) bool { return strings.HasPrefix(name, "classification_head.") }) {
		architecture = "SwitchTransformersForSequenceClassification" // ours: transformers has none
	}
	set("architectures", []string{architecture})
	set("dense_act_fn", act)
	set("num_experts", u.o.Experts)
	set("expert_capacity", u.o.Capacity)
	set("router_bias", false)
	set("router_dtype", "float32")
	set("router_jitter_noise", 0.01)
	set("router_ignore_padding_tokens", false)
	set("router_z_loss_coef", 0.001)
	set("router_aux_loss_coef", 0.001)
	set("add_router_probs", false)
	return cfg, err
}

func orNothing(raw []byte) string {
	if raw == nil {
		return "nothing"
	}
	return string(raw)
}

// mlp says of a tensor that is a matrix of an MLP what the MLP's name is in
// Switch, which matrix it is and whether the layer is to be sparse.
func (u *upcycler) mlp(name string) (mlp, matrix string, sparse, ok bool) {
	m := t5MLP.FindStringSubmatch(name)
	if m == nil {
		return "", "", false, false
	}
	layer, err := strconv.Atoi(m[2])
	mlp = fmt.Sprintf("%s.block.%s.layer.%s.mlp", m[1], m[2], m[3])
	return mlp, m[4], err == nil && (u.o.Every == 1 || layer%u.o.Every == 1), true
}

// plainName is a tensor's name without the prefix that it has in a T5 with a
// label head; Switch has none.
func plainName(name string) string { return strings.TrimPrefix(name, "transformer.") }

func expertName(mlp string, e int, matrix string) string {
	return fmt.Sprintf("%s.experts.expert_%d.%s.weight", mlp, e, matrix)
}

func routerName(mlp string) string { return mlp + ".router.classifier.weight" }

func (u *upcycler) specs() ([]checkpoint.Spec, error) {
	var specs []checkpoint.Spec
	for _, name := range u.src.Weights.Names() {
		t, _ := u.src.Weights.Tensor(name)
		s := t.Spec()
		mlp, matrix, sparse, ok := u.mlp(name)
		switch {
		case !ok:
			s.Name = plainName(name)
			specs = append(specs, s)
			continue
		case !s.DType.IsFloat():
			return nil, fmt.Errorf("%s: %s: expected F64, F32, F16 or BF16, found %s", u.src.Path, name, s.DType)
		case len(s.Shape) != 2:
			return nil, fmt.Errorf("%s: %s: expected a matrix, found shape %v", u.src.Path, name, s.Shape)
		case !sparse:
			s.Name = mlp + "." + matrix + ".weight"
			specs = append(specs, s)
			continue
		}
		for e := range u.o.Experts {
			s.Name = expertName(mlp, e, matrix)
			specs = append(specs, s)
		}
		if matrix == "wi" {
			u.layers = append(u.layers, mlp)
			u.hidden = s.Shape[1]
			specs = append(specs, checkpoint.Spec{Name: routerName(mlp), DType: s.DType, Shape: []int{u.o.Experts, u.hidden}})
		}
	}
	if len(u.layers) == 0 {
		return nil, fmt.Errorf("%s: expected MLPs such as encoder.block.1.layer.1.DenseReluDense.wi.weight, found none", u.src.Path)
	}
	slices.Sort(u.layers)
	return specs, nil
}

func (u *upcycler) write(ctx context.Context, w *checkpoint.Writer) error {
	names := u.src.Weights.Names()
	for i, name := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		if u.o.Progress != nil {
			u.o.Progress(i, len(names))
		}
		t, _ := u.src.Weights.Tensor(name)
		if err := u.writeTensor(w, t); err != nil {
			return err
		}
	}
	return nil
}

// writeTensor copies a tensor, or writes what becomes of an MLP's matrix.
func (u *upcycler) writeTensor(w *checkpoint.Writer, t *checkpoint.Tensor) error {
	mlp, matrix, sparse, ok := u.mlp(t.Name)
	if !ok {
		return w.Copy(plainName(t.Name), t)
	}
	values := make([]float32, t.Elements())
	if err := t.ReadFloat32(values); err != nil {
		return fmt.Errorf("%s: %w", u.src.Path, err)
	}
	if !sparse {
		return w.WriteFloat32(mlp+"."+matrix+".weight", values)
	}
	scale := float32(1)
	if matrix == "wo" {
		scale = float32(u.o.Experts)
	}
	std := u.o.Noise * math.Sqrt(kernel.SumSquares(values)/float64(len(values)))
	expert := make([]float32, len(values))
	for e := range u.o.Experts {
		name := expertName(mlp, e, matrix)
		rng := u.random(name)
		for i, v := range values {
			if std > 0 {
				v += float32(std * rng.NormFloat64())
			}
			expert[i] = scale * v
		}
		if err := w.WriteFloat32(name, expert); err != nil {
			return err
		}
	}
	if matrix == "wi" {
		name := routerName(mlp)
		rng := u.random(name)
		router := make([]float32, u.o.Experts*u.hidden)
		for i := range router {
			router[i] = float32(u.o.RouterStd * rng.NormFloat64())
		}
		return w.WriteFloat32(name, router)
	}
	return nil
}

// random is a stream of the seed for one tensor, the same whatever else is made.
func (u *upcycler) random(name string) *rand.Rand {
	h := fnv.New64a()
	h.Write([]byte(name))
	return rand.New(rand.NewPCG(u.o.Seed, h.Sum64()))
}
