package convert

import (
	"fmt"
	"math"
	"math/bits"
	"slices"

	"mlpfusion/checkpoint"
	"mlpfusion/model"
)

// Contents is what Inspect finds in a checkpoint directory.
type Contents struct {
	Path       string `json:"path"`
	Family     string `json:"family"`
	Layers     int    `json:"layers"`
	Hidden     int    `json:"hidden_size"`
	Heads      int    `json:"heads"`
	Parameters int    `json:"parameters"` // heads included, P and what masks cut not
	// OriginalParameters are those of the model before its blocks were compressed.
	OriginalParameters int                `json:"original_parameters"`
	Bytes              int64              `json:"bytes"` // of the weight files
	Labels             []string           `json:"labels"`
	Fusion             *checkpoint.Fusion `json:"fusion,omitempty"`
	Blocks             []BlockContents    `json:"blocks"`
	// MLPFLOPs are the multiply-adds of all MLPs for one token, times two, and of
	// the original's. A token passes through some experts of a mixture: they count
	// as their mean.
	MLPFLOPs         int `json:"mlp_flops_per_token"`
	OriginalMLPFLOPs int `json:"original_mlp_flops_per_token"`
	// Routers is what the routers do with texts, where those were given.
	Routers []RouterUse `json:"routers,omitempty"`
}

// BlockContents is one MLP block.
type BlockContents struct {
	Name          string `json:"name"`
	Layer         int    `json:"layer"`
	Method        string `json:"method,omitempty"` // "" when not compressed
	Width         int    `json:"width"`
	Original      int    `json:"original_width"`
	Rank          int    `json:"rank,omitempty"`
	Parameters    int    `json:"parameters"`
	OriginalParam int    `json:"original_parameters"`
	FLOPs         int    `json:"flops_per_token"`
	OriginalFLOPs int    `json:"original_flops_per_token"`
	// Explained is 1 − inertia/total, the share of the units' spread that the
	// centroids keep, and Silhouette the units' mean; nil where not clustered.
	Explained  *float64 `json:"inertia_explained,omitempty"`
	Silhouette *float64 `json:"silhouette,omitempty"`
	// Router is the tensor that chooses among the experts of which this is one, ""
	// for a dense MLP. Weights is the block whose matrices it uses, "" for its own.
	Router  string `json:"router,omitempty"`
	Weights string `json:"weights,omitempty"`
	// Sizes are the cluster sizes, where P is kept, without units that are not
	// its own.
	Sizes []int `json:"cluster_sizes,omitempty"`
	Dead  int   `json:"dead_units,omitempty"` // added by export
}

// InspectPath is Inspect of the directory at a path.
func InspectPath(path string) (*Contents, error) {
	dir, err := checkpoint.OpenDir(path)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return Inspect(dir)
}

// Inspect reads a directory's configuration and headers, and of the weights the
// cluster sizes and those behind masks only.
func Inspect(dir *checkpoint.Dir) (*Contents, error) {
	src, err := model.Open(dir)
	if err != nil {
		return nil, err
	}
	cfg := src.Config
	fused, err := dir.Config.Fusion()
	if err != nil {
		return nil, err
	}
	c := &Contents{Path: dir.Path, Family: cfg.Type, Layers: cfg.Layers, Hidden: cfg.Hidden, Heads: cfg.Attention[0].Heads, Labels: cfg.Labels, Fusion: fused, Bytes: weightBytes(dir.Path)}
	for _, t := range src.Tensors {
		if stored := src.Find(t.Name); stored != nil && t.Trained() {
			c.Parameters += stored.Elements()
		}
	}
	var flops, original float64
	change := 0
	for _, b := range src.Blocks {
		bc := BlockContents{Name: b.Name, Layer: b.Layer, Width: b.Width, Original: b.Original, Rank: b.Form.Rank, Router: b.Router, Weights: b.Form.Weights}
		if fused != nil {
			if l, ok := fused.Layers[b.Name]; ok {
				bc.Method, bc.Dead = l.Method, l.Padded
				if l.Original > 0 {
					bc.Original = l.Original
				}
				if l.Total > 0 {
					explained := 1 - l.Inertia/l.Total
					bc.Explained, bc.Silhouette = &explained, &l.Silhouette
				}
			}
		}
		from := b
		if o := model.Owner(src.Blocks, b); o != nil {
			from = o
		}
		for _, t := range from.Tensors() {
			if t.Role == "scale" || t.Role == "step" {
				continue
			}
			stored := src.Find(t.Name)
			if from == b {
				bc.Parameters += stored.Elements()
			}
			if len(t.Shape) == 2 {
				bc.FLOPs += 2 * stored.Elements()
			}
			if b.Form.Masked && len(t.Shape) == 2 {
				cut, err := zeros(stored)
				if err != nil {
					return nil, err
				}
				bc.Parameters -= cut
				c.Parameters -= cut
			}
		}
		matrices := b.Matrices()
		bc.OriginalParam = matrices * b.Hidden * bc.Original
		bc.OriginalFLOPs = 2 * bc.OriginalParam
		if b.Bias {
			bc.OriginalParam += (matrices-1)*bc.Original + b.Hidden
		}
		if b.Form.ClusterSizes {
			p, err := src.Find(b.ClusterSizesName()).Values()
			if err != nil {
				return nil, err
			}
			for _, v := range p {
				if v != 0 {
					bc.Sizes = append(bc.Sizes, int(math.Round(float64(v))))
				}
			}
			slices.Sort(bc.Sizes)
			bc.FLOPs = bc.FLOPs / b.Width * len(bc.Sizes)
		}
		change += bc.OriginalParam - bc.Parameters
		if fused != nil && fused.Experts > 0 && b.Experts > 0 && b.Expert == 0 { // others were dropped, with the router's rows
			row := b.Hidden
			for _, name := range []string{b.RouterBias, b.Correction} {
				if name != "" {
					row++
				}
			}
			change += (fused.Experts - b.Experts) * (bc.OriginalParam + row)
		}
		flops += b.Share() * float64(bc.FLOPs)
		original += b.Share() * float64(bc.OriginalFLOPs)
		c.Blocks = append(c.Blocks, bc)
	}
	c.MLPFLOPs, c.OriginalMLPFLOPs = int(math.Round(flops)), int(math.Round(original))
	c.OriginalParameters = c.Parameters + change
	return c, nil
}

// zeros counts a tensor's zeros: the weights that a mask has cut.
func zeros(t *model.Stored) (n int, err error) {
	values, err := t.Values()
	if err != nil {
		return 0, err
	}
	for _, v := range values {
		if v == 0 {
			n++
		}
	}
	return n, nil
}

// SizeCounts counts the clusters by size, in powers of two: its i-th element is
// the number of clusters of 2^i … 2^(i+1)−1 units.
func (b *BlockContents) SizeCounts() []int {
	var counts []int
	for _, s := range b.Sizes {
		bin := max(0, bits.Len(uint(s))-1)
		for len(counts) <= bin {
			counts = append(counts, 0)
		}
		counts[bin]++
	}
	return counts
}

// SizeRange says which sizes SizeCounts counts in bin.
func SizeRange(bin int) string {
	if bin == 0 {
		return "1"
	}
	return fmt.Sprintf("%d–%d", 1<<bin, 1<<(bin+1)-1)
}
