package model

import (
	"math"

	"mlpfusion/kernel"
	"mlpfusion/nn"
)

// Arch describes a transformer: what its family makes of a config.json.
type Arch struct {
	Hidden int // hidden size p
	Layers int // of an encoder–decoder the encoder's
	// DecoderLayers are an encoder–decoder's; 0 in a model of one stack.
	DecoderLayers int
	Attention     []Attention // of each layer; of an encoder–decoder all are alike

	Intermediate int   // hidden units of an MLP before fusion, p_I
	Widths       []int // those of each layer where they may differ, Intermediate being the most; else nil
	Multiple     int   // of which a share of the units is to be one, for fast products elsewhere; 0: any number will do
	Act          kernel.Activation
	Gated        bool
	MLPBias      bool
	Mixture      Mixture

	Vocab         int
	Positions     int   // rows of the position embeddings, or the longest sequence
	FirstPosition int   // of a sequence
	Types         int   // token types; 0: none
	oneType       bool  // every token has type 0
	PadID         int   // −1: none
	StartID       int   // the first token that the decoder of an encoder–decoder reads
	EndIDs        []int // the tokens that end a text; of language models

	Norm       Norm
	Eps        float32 // of the norms
	EmbedScale float32 // of the embeddings; 0: none
	InitStd    float32
	Dropout
	Tied bool // the language model's head is the word embeddings
	// ResidualScale is what a sublayer gives is multiplied by before it is added to the
	// stream; 0: nothing.
	ResidualScale float32
	LogitScale    float32 // of a language model's logits
	LogitCap      float32 // bounds them, see nn.Tape.Softcap; 0: they have no bound

	names names // of the tensors of a stack
	// unusedLayers is how many layers beyond Layers a checkpoint may hold, for other uses.
	unusedLayers int
	classifier   classifier // the head for labels
	seq2seq      *seq2seq   // of an encoder–decoder; else nil
}

// Attention describes a layer's self-attention.
type Attention struct {
	Heads, Dim    int // Dim is the width of a head
	KVHeads       int // heads of keys and values, see nn.AttentionOptions
	Bias, OutBias bool
	Scale         float32 // of the scores; 0: 1/√Dim
	Causal        bool
	Window        int      // keys that a query sees; 0: all
	Softcap       float32  // bounds the scores; 0: they have no bound
	Rope          *nn.Rope // of queries and keys; nil: none
	QKNorm        QKNorm
	Latent        *Latent // of DeepSeek's kind, whose heads are wide as its Plain and Turned together; nil: not
	Clip          float32 // bounds queries, keys and values to ±Clip; 0: they have no bound
}

// QKNorm is what norms of queries and keys run over.
type QKNorm int

const (
	NoQKNorm  QKNorm = iota
	NormHeads        // each head, all with one gain (Qwen 3, Gemma 3)
	NormAll          // all heads at once (OLMo 2)
)

// Width is the number of columns of all heads' queries, KVWidth that of their keys.
func (a *Attention) Width() int   { return a.Heads * a.Dim }
func (a *Attention) KVWidth() int { return a.KVHeads * a.Dim }

// options are those that an attention layer of the kind runs with.
func (a *Attention) options(drop float32) nn.AttentionOptions {
	return nn.AttentionOptions{Heads: a.Heads, Dim: a.Dim, KVHeads: a.KVHeads, Causal: a.Causal, Window: a.Window, Scale: a.Scale, Softcap: a.Softcap, Drop: drop}
}

// plain tells whether nothing stands between a projection and its product with others.
func (a *Attention) plain() bool {
	return a.KVHeads == a.Heads && a.Window == 0 && a.Clip == 0 && a.Softcap == 0 && a.Rope == nil && a.QKNorm == NoQKNorm
}

// Mixture describes the mixtures of experts of a model, which are all alike.
type Mixture struct {
	Experts int // of each; 0 in a model without mixtures
	Width   int // hidden units of an expert before fusion
	nn.Router
	// Shared is how many hidden units the expert has that every token passes through,
	// times the sigmoid of a gate if SharedGate; 0: there is none.
	Shared             int
	SharedGate         bool
	RouterBias         bool
	Jitter             float32 // of what a router reads in training
	JitterExperts      bool    // the experts read it too
	ZLoss, BalanceLoss float64 // weights of the routers' losses
	// BySequence has the balance loss count the tokens of each sequence apart.
	BySequence bool

	dense map[int]bool // layers that have an MLP in place of a mixture
	// widthKey and sharedKey are the keys of config.json that hold Width and, as one of
	// sharedTimes equal parts, Shared; "": the family's for an MLP.
	widthKey, sharedKey string
	expertsKey          string // the key of config.json that holds Experts
	sharedTimes         int
}

// in tells whether a layer of a stack has a mixture.
func (m *Mixture) in(layer int) bool { return m.Experts > 0 && !m.dense[layer] }

// Norm is a kind of normalisation.
type Norm int

const (
	LayerNorm Norm = iota
	RMSNorm
	RMSNormOnePlus // whose gain is 1 + weight (Gemma)
)

// Dropout are the probabilities of dropout in training.
type Dropout struct {
	EmbedDrop  float32 // after the embeddings
	HiddenDrop float32 // before each addition to the residual
	AttnDrop   float32 // of attention probabilities
	HeadDrop   float32 // before the classifier
}

// names are those of the tensors of a stack without .weight and .bias, "" where it has
// none. A layer's are behind its own name and a dot.
type names struct {
	words, positions, types, embedNorm string

	layer          string   // %d stands for its number
	block          string   // the MLP within the layer; "": it has the layer's name
	qkv            []string // queries, keys and values, or all in one
	out            string
	qNorm, kNorm   string
	attnNorms      norms
	gate, up, down string
	gateUp         string // gate and up in one matrix, in place of theirs
	mixture        mixtureNames
	mlpNorms       norms
	norm           string // after the last layer
	head           string // of a language model
	transposed     bool   // the layers' matrices are stored transposed, as Conv1D
	scaledInit     bool   // out and down begin smaller by √(2·layers)
}

// mixtureNames are those of a layer's mixture. A stack is one tensor of three dimensions
// that holds the matrices of all experts, of gate and up both: what a checkpoint may
// have in place of a tensor for each, or has where the family is stacked.
type mixtureNames struct {
	name           string // of the mixture within the layer
	router         string // within the mixture, as the next
	expert         string // %d stands for its number
	gate, up, down string // within the expert
	gateUpStack    string // within the layer, as the next two; with .weight where it has that
	downStack      string
	otherRouter    string // the router's name beside stacks
	correction     string // of the choice, as the next two within the mixture
	shared         string
	sharedGate     string
	stacked        bool
}

// norms are the places of the norms about a sublayer f, which say what kind of
// transformer it is: sum(x + after(f(before(x)))).
type norms struct{ before, after, sum string }

// classifier describes a head for labels: from the first or last state of a
// sequence through a dense layer, where it has one, to the logits.
type classifier struct {
	dense, out string // names
	act        kernel.Activation
	dropFirst  bool // dropout before the dense layer as well as after it
	outBias    bool
	lastToken  bool
	skipPad    bool // the last token that is not padding's
}

// Units is the number that a share of an MLP's hidden units comes to: a multiple of
// Multiple where the whole is one.
func (a *Arch) Units(share float64) int { return unitsOf(share, a.Intermediate, a.Multiple) }

func unitsOf(share float64, all, multiple int) int {
	if multiple == 0 || all%multiple != 0 {
		multiple = 1
	}
	return multiple * max(1, int(math.Round(share*float64(all/multiple))))
}

// TwoStacks tells whether the model is an encoder–decoder.
func (a *Arch) TwoStacks() bool { return a.DecoderLayers > 0 }

// usesTypes tells whether the token types of a batch are looked at.
func (a *Arch) usesTypes() bool { return a.Types > 0 && !a.oneType }

// MaxLength is the largest number of tokens of a sequence.
func (a *Arch) MaxLength() int { return a.Positions - a.FirstPosition }

// EndID is the token with which a text to be learnt ends; −1 if there is none.
func (a *Arch) EndID() int {
	if len(a.EndIDs) == 0 {
		return -1
	}
	return a.EndIDs[0]
}

// layers returns the attention of n layers that are alike.
func layers(n int, a Attention) []Attention {
	if a.KVHeads == 0 {
		a.KVHeads = a.Heads
	}
	all := make([]Attention, max(0, n))
	for i := range all {
		all[i] = a
	}
	return all
}
