package kernel

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"testing"
)

// table is a function of whatever type, tables are those under test.
type table interface {
	best(isa ISA) int              // the form that is in use where there is isa
	set(form int) (restore func()) // puts a form in use, interpreted if it must be
}

type tables []table

func (fn *function[F]) set(i int) (restore func()) {
	f, use := fn.forms[i], fn.use
	fn.use = f.f
	if f.isa&^detected != 0 {
		fn.use = interpreted(f.f).(F)
	}
	return func() { fn.use = use }
}

// each runs a test once for each combination of forms that the levels choose for the
// functions under test, by the level's name. A form runs natively or, where the machine
// lacks its instructions, interpreted.
func each(t *testing.T, under tables, test func(t *testing.T)) {
	var seen []string
	for _, l := range levels {
		forms := make([]int, len(under))
		for i, fn := range under {
			forms[i] = fn.best(l.isa)
		}
		if key := fmt.Sprint(forms); slices.Contains(seen, key) {
			continue
		} else {
			seen = append(seen, key)
		}
		t.Run(l.name, func(t *testing.T) {
			if l.isa&^detected != 0 && interpreted == nil {
				t.Skipf("this machine lacks %s, and its assembly has no interpreter", l.name)
			}
			for i, fn := range under {
				defer fn.set(forms[i])()
			}
			interpreting = l.isa&^detected != 0
			defer func() { interpreting = false }()
			test(t)
			for i, fn := range under {
				tested[testedForm{fn, forms[i]}] = true
			}
		})
	}
}

// interpreting says that the form under test is interpreted, slow as it is.
var interpreting bool

type testedForm struct {
	fn   table
	form int
}

var (
	tested    = map[testedForm]bool{}
	interpret = flag.Bool("interpret", false, "interpret also what the machine could run, which proves the interpreter")
)

// all returns every function of the package, by name.
func all() map[string]table {
	m := map[string]table{
		"Dot": &dot, "Axpy": &axpy, "Mul": &mul, "Scale": &scale, "AddTo": &addTo, "AddColumns": &addRows4,
		"SumSquares": &sumSquares, "SumSquaresColumns": &sumSquaresColumns,
		"Softmax": &softmax, "MaxScaled": &maxScaled, "ExpSum": &expSum, "SoftmaxGrad": &softmaxGrad,
		"LayerNorm": &layerNorm, "LayerNormGrad": &layerNormGrad,
		"RMSNorm": &rmsNorm, "RMSNormGrad": &rmsNormGrad,
		"AdamW.Step": &adamStep, "AdamW.StepColumns": &adamStepColumns, "DropoutApply": &dropApply,
		"Gemm FP32": &gemms[FP32], "Gemm BF16": &gemms[BF16], "Gemm INT8": &gemms[INT8],
	}
	for a := Identity; a <= Tanh; a++ {
		m["Activate "+activationNames[a]] = &activations[a].plain
		m["Activate "+activationNames[a]+" with its derivative"] = &activations[a].deriv
		m["Gated "+activationNames[a]] = &activations[a].gated
		m["GatedGrad "+activationNames[a]] = &activations[a].gatedGrad
	}
	return m
}

// TestMain fails a whole run that leaves a form of a function without a test.
func TestMain(m *testing.M) {
	flag.Parse()
	if *interpret {
		detected = 0
	}
	status := m.Run()
	if whole := flag.Lookup("test.run").Value.String() == "" && flag.Lookup("test.list").Value.String() == ""; whole && status == 0 {
		for name, fn := range all() {
			for _, l := range levels {
				if l.isa&^detected != 0 && interpreted == nil {
					continue
				}
				if !tested[testedForm{fn, fn.best(l.isa)}] {
					fmt.Printf("%s at level %s has no test\n", name, l.name)
					status = 1
				}
			}
		}
	}
	os.Exit(status)
}

func TestChoose(t *testing.T) {
	defer func(isa ISA) { detected = isa }(detected)
	detected = AVX2 | AVX512
	for _, c := range []struct {
		name string
		want ISA
		err  string
	}{
		{"", AVX2 | AVX512, ""},
		{"portable", 0, ""},
		{"avx2", AVX2, ""},
		{"avx512", AVX2 | AVX512, ""},
		{"amx", AVX2 | AVX512, `MLPFUSION_ISA: expected one of portable, avx2, avx512, found "amx", which this machine lacks`},
		{"neon", AVX2 | AVX512, `MLPFUSION_ISA: expected one of portable, avx2, avx512, found "neon", which this machine lacks`},
		{"nonsense", AVX2 | AVX512, `MLPFUSION_ISA: expected one of portable, avx2, avx512, found "nonsense", which is no level`},
	} {
		got, err := choose(c.name)
		if err == nil && c.err != "" || err != nil && err.Error() != c.err || got != c.want {
			t.Errorf("%q chose %b with error %v, want %b and %q", c.name, got, err, c.want, c.err)
		}
	}
}

// TestKernels: which implementations a processor gets. Where VDPBF16PS is slower than
// float32's instruction, bfloat16 is multiplied as float32.
func TestKernels(t *testing.T) {
	if len(gemms[FP32].forms) == 1 {
		t.Skip("this build has no assembly")
	}
	const amd = AVX2 | AVX512 | AVX512BF16 | fastBF16
	const widened = ", inputs rounded to bfloat16 and multiplied as float32"
	type processor struct {
		name               string
		isa                ISA
		fp32, bf16, vector string
	}
	processors := map[string][]processor{"amd64": {
		{"none", 0, "portable", "portable" + widened, "portable"},
		{"AVX2", AVX2, "avx2", "avx2" + widened, "avx2"},
		{"AVX-512", AVX2 | AVX512, "avx512", "avx512" + widened, "avx512"},
		{"AMD with AVX512_BF16", amd, "avx512", "avx512bf16", "avx512"},
		{"Intel with AVX512_BF16", amd &^ fastBF16, "avx512", "avx512" + widened, "avx512"},
		{"Intel with AMX", amd&^fastBF16 | AMX, "avx512", "amx", "avx512"},
	}, "arm64": {
		{"NEON held back", 0, "portable", "portable" + widened, "portable"},
		{"NEON", NEON, "neon", "neon" + widened, "neon"},
		{"NEON with BFDOT", NEON | NEONBF16, "neon", "neonbf16", "neon"},
	}}
	for _, c := range processors[runtime.GOARCH] {
		fp32, bf16, vector := kernels(c.isa)
		if fp32 != c.fp32 || bf16 != c.bf16 || vector != c.vector {
			t.Errorf("%s: %q, %q and %q, want %q, %q and %q", c.name, fp32, bf16, vector, c.fp32, c.bf16, c.vector)
		}
		half := gemms[BF16].forms[gemms[BF16].best(c.isa)].f
		if pairs := half != nil && half.pairs; pairs == (half == gemms[FP32].forms[gemms[FP32].best(c.isa)].f) {
			t.Errorf("%s: bfloat16 is multiplied as such: %v, and in float32's kernel too", c.name, pairs)
		}
	}
}
