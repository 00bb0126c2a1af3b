package convert

import (
	"cmp"
	"context"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"mlpfusion/checkpoint"
	"mlpfusion/kernel"
)

// UpcycleOptions are the choices of Upcycle. Experts is required.
type UpcycleOptions struct {
	Experts int
	// TopK is the number of experts that a token goes to in families where it goes to
	// several; 0 means 2.
	TopK int
	// Every is the distance of sparse layers in each stack of a Switch Transformer; 0
	// means 2: layers 1, 3, 5 …; 1 means all layers.
	Every int
	// Noise is the standard deviation of what is added to each expert's weights,
	// relative to the root mean square of the matrix.
	Noise float64
	// Drop is the share of each expert's units that are drawn anew, others in every
	// expert (drop-upcycling, arXiv 2502.19261).
	Drop float64
	// RouterStd is the standard deviation of the routers' weights. At 0 every
	// token goes to the first experts.
	RouterStd float64
	// Capacity is the most tokens of a sequence that an expert of a Switch Transformer
	// takes; 0 means 512. Those beyond it pass the layer unchanged.
	Capacity  int
	Seed      uint64
	Overwrite bool
	Progress  func(done, total int) // of the tensors; may be nil
}

// Upcycled is what Upcycle made.
type Upcycled struct {
	Family      string   `json:"family"`
	Experts     int      `json:"experts"`
	Layers      []string `json:"layers"` // the sparse ones
	SourceBytes int64    `json:"source_bytes"`
	Bytes       int64    `json:"bytes"`
}

// upcycling is a way from a dense family to one with mixtures of experts.
type upcycling struct {
	from, to string // model types
	// config makes the new config.json of a copy of the old one.
	config func(u *upcycler, cfg *checkpoint.Config) error
	// mlp says of a tensor that is a matrix of an MLP what the mixture's name is to be,
	// which matrix it is, and in which layer.
	mlp func(name string) (mixture, matrix string, layer int, ok bool)
	// Names of what becomes of it: of an expert's matrix, of the router, of the matrix in
	// a layer that stays dense; and of any other tensor.
	expert func(mixture string, e int, matrix string) string
	router func(mixture string) string
	dense  func(mixture, matrix string) string
	other  func(name string) string

	first, down string // the matrices that come first, and whose columns are the units
	// weighted tells that an expert's output is multiplied by its probability among all.
	weighted bool
}

var upcyclings []upcycling // each in the file of its new family's form, see init there

// Upcycle writes a mixture-of-experts model made of the dense checkpoint in src (sparse
// upcycling, arXiv 2212.05055): the MLP becomes o.Experts copies of it behind a new
// router; all else is copied.
//
// Where a token's weights sum to 1, as in Mixtral and Qwen3-MoE, the function is the
// dense model's. A Switch layer multiplies its expert's output by the router's
// probability. The experts' wo is multiplied by their number E against it: a token whose
// expert has the probability q then gets E·q times the dense MLP's output. With the
// routers' weights 0 that is exactly the dense model (q is 1/E, and a power of two leaves
// no rounding), but all tokens go to the first expert; with small weights tokens spread
// and E·q is nearly 1.
func Upcycle(ctx context.Context, src *checkpoint.Dir, out string, o UpcycleOptions) (*Upcycled, error) {
	u := &upcycler{src: src, o: o}
	if err := u.choose(); err != nil {
		return nil, err
	}
	cfg := src.Config.Clone()
	if err := u.way.config(u, cfg); err != nil {
		return nil, fmt.Errorf("%s: %w", src.Path, err)
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
	return &Upcycled{Family: u.way.to, Experts: o.Experts, Layers: u.layers, SourceBytes: weightBytes(src.Path), Bytes: weightBytes(out)}, nil
}

type upcycler struct {
	src    *checkpoint.Dir
	o      UpcycleOptions
	way    *upcycling
	layers []string // names of the mixtures
	hidden int
}

// choose finds the way that the model goes and checks the options against it.
func (u *upcycler) choose() error {
	cfg, o := u.src.Config, &u.o
	kind, err := cfg.String("model_type")
	if at := slices.IndexFunc(upcyclings, func(w upcycling) bool { return w.from == kind }); err == nil && at >= 0 {
		u.way = &upcyclings[at]
	} else {
		var known []string
		for _, w := range upcyclings {
			known = append(known, w.from)
		}
		found := "nothing"
		if raw := cfg.Raw("model_type"); raw != nil {
			found = string(raw)
		}
		return fmt.Errorf("%s: config.json: model_type: expected %s, found %s", u.src.Path, strings.Join(known, ", "), found)
	}
	if cfg.Has("mlpfusion") {
		return fmt.Errorf("%s: config.json: expected an original model, found one whose blocks were compressed", u.src.Path)
	}
	share := func(v float64) bool { return v >= 0 && !math.IsInf(v, 0) }
	switch {
	case o.Experts < 2 || o.Experts > 1<<16:
		return fmt.Errorf("experts: expected 2 to %d, found %d", 1<<16, o.Experts)
	case !share(o.Noise):
		return fmt.Errorf("noise: expected a number of at least 0, found %g", o.Noise)
	case !share(o.RouterStd):
		return fmt.Errorf("router-std: expected a number of at least 0, found %g", o.RouterStd)
	case !(o.Drop >= 0 && o.Drop <= 1):
		return fmt.Errorf("drop: expected a share of 0 to 1, found %g", o.Drop)
	case u.way.weighted && o.TopK != 0:
		return fmt.Errorf("top-k: expected with a model that becomes one of several experts a token, found %s, which becomes %s", kind, u.way.to)
	case !u.way.weighted && (o.Every != 0 || o.Capacity != 0):
		return fmt.Errorf("every and capacity: expected with t5, found %s", kind)
	case o.TopK < 0 || o.TopK > o.Experts:
		return fmt.Errorf("top-k: expected 1 to the %d experts, found %d", o.Experts, o.TopK)
	case o.Capacity < 0:
		return fmt.Errorf("capacity: expected a number above 0, found %d", o.Capacity)
	}
	if o.TopK == 0 {
		o.TopK = 2
	}
	if o.Every == 0 {
		o.Every = 1
		if u.way.weighted {
			o.Every = 2
		}
	}
	if o.Capacity == 0 {
		o.Capacity = 512
	}
	return nil
}

// sparse tells whether a layer gets a mixture.
func (u *upcycler) sparse(layer int) bool { return u.o.Every == 1 || layer%u.o.Every == 1 }

func (u *upcycler) specs() ([]checkpoint.Spec, error) {
	var specs []checkpoint.Spec
	for _, name := range u.src.Weights.Names() {
		t, _ := u.src.Weights.Tensor(name)
		s := t.Spec()
		mixture, matrix, layer, ok := u.way.mlp(name)
		switch {
		case !ok:
			s.Name = u.way.other(name)
			specs = append(specs, s)
			continue
		case !s.DType.IsFloat():
			return nil, fmt.Errorf("%s: %s: expected F64, F32, F16 or BF16, found %s", u.src.Path, name, s.DType)
		case len(s.Shape) != 2:
			return nil, fmt.Errorf("%s: %s: expected a matrix, found shape %v", u.src.Path, name, s.Shape)
		case !u.sparse(layer):
			s.Name = u.way.dense(mixture, matrix)
			specs = append(specs, s)
			continue
		}
		for e := range u.o.Experts {
			s.Name = u.way.expert(mixture, e, matrix)
			specs = append(specs, s)
		}
		if matrix == u.way.first {
			u.layers = append(u.layers, mixture)
			u.hidden = s.Shape[1]
			specs = append(specs, checkpoint.Spec{Name: u.way.router(mixture), DType: s.DType, Shape: []int{u.o.Experts, u.hidden}})
		}
	}
	if len(u.layers) == 0 {
		return nil, fmt.Errorf("%s: expected MLPs under the names of a %s, found none", u.src.Path, u.way.from)
	}
	slices.SortFunc(u.layers, func(a, b string) int { return cmp.Or(len(a)-len(b), strings.Compare(a, b)) })
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
	mixture, matrix, layer, ok := u.way.mlp(t.Name)
	if !ok {
		return w.Copy(u.way.other(t.Name), t)
	}
	values := make([]float32, t.Elements())
	if err := t.ReadFloat32(values); err != nil {
		return fmt.Errorf("%s: %w", u.src.Path, err)
	}
	if !u.sparse(layer) {
		return w.WriteFloat32(u.way.dense(mixture, matrix), values)
	}
	scale := float32(1)
	if u.way.weighted && matrix == u.way.down {
		scale = float32(u.o.Experts)
	}
	std := u.o.Noise * math.Sqrt(kernel.SumSquares(values)/float64(len(values)))
	expert := make([]float32, len(values))
	for e := range u.o.Experts {
		name := u.way.expert(mixture, e, matrix)
		rng := u.random(name)
		copy(expert, values)
		u.redraw(expert, t.Shape, mixture, matrix, e, rng)
		for i, v := range expert {
			if std > 0 {
				v += float32(std * rng.NormFloat64())
			}
			expert[i] = scale * v
		}
		if err := w.WriteFloat32(name, expert); err != nil {
			return err
		}
	}
	if matrix == u.way.first {
		name := u.way.router(mixture)
		rng := u.random(name)
		router := make([]float32, u.o.Experts*u.hidden)
		for i := range router {
			router[i] = float32(u.o.RouterStd * rng.NormFloat64())
		}
		return w.WriteFloat32(name, router)
	}
	return nil
}

// redraw draws an expert's dropped units anew in one of its matrices, from the normal
// distribution of the values that they had there (arXiv 2502.19261, section 3.2).
func (u *upcycler) redraw(values []float32, shape []int, mixture, matrix string, e int, rng *rand.Rand) {
	units, step, length := shape[0], 1, shape[1]
	if matrix == u.way.down {
		units, step, length = shape[1], shape[1], shape[0]
	}
	dropped := u.random(fmt.Sprintf("%s %d units", mixture, e)).Perm(units)[:int(math.Round(u.o.Drop*float64(units)))]
	each := func(f func(v *float32)) {
		for _, k := range dropped {
			start := k
			if step == 1 {
				start = k * length
			}
			for i := range length {
				f(&values[start+i*step])
			}
		}
	}
	var sum, squares float64
	each(func(v *float32) { sum += float64(*v); squares += float64(*v) * float64(*v) })
	n := float64(len(dropped) * length)
	mean := sum / n
	std := math.Sqrt(max(0, squares/n-mean*mean))
	each(func(v *float32) { *v = float32(mean + std*rng.NormFloat64()) })
}

// random is a stream of the seed for one tensor, the same whatever else is made.
func (u *upcycler) random(name string) *rand.Rand {
	h := fnv.New64a()
	h.Write([]byte(name))
	return rand.New(rand.NewPCG(u.o.Seed, h.Sum64()))
}
