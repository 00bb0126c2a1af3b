package kernel

// A function has several implementations, of which one is in use: of those whose
// instructions may be used, the one registered last. The portable one is always
// there, and is the oracle that the others are tested against. A platform registers
// its own in a file of its own (forms_amd64.go).
type function[F any] struct {
	use   F
	forms []form[F]
}

// form is one implementation and the extensions that it needs.
type form[F any] struct {
	isa ISA
	f   F
}

// portable returns a function that has only a portable form.
func portable[F any](f F) function[F] { return function[F]{f, []form[F]{{0, f}}} }

// add registers a form that is preferred to those before it.
func (fn *function[F]) add(isa ISA, f F) *function[F] {
	fn.forms = append(fn.forms, form[F]{isa, f})
	if Has(isa) {
		fn.use = f
	}
	return fn
}

// best returns the number of the form that is in use where there are these extensions.
func (fn *function[F]) best(isa ISA) (best int) {
	for i, f := range fn.forms {
		if f.isa&^isa == 0 {
			best = i
		}
	}
	return best
}

// name returns the name of the form in use there: that of the lowest level that has
// what it needs.
func (fn *function[F]) name(isa ISA) string {
	for _, l := range levels {
		if fn.forms[fn.best(isa)].isa&^l.isa == 0 {
			return l.name
		}
	}
	return "" // never: the last level has all
}

// Kernels says in three words or phrases which implementation products of float32
// and of bfloat16 get here, and which the vector functions.
func Kernels() (fp32, bf16, vector string) { return kernels(usable) }

func kernels(isa ISA) (fp32, bf16, vector string) {
	fp32, bf16, vector = gemms[FP32].name(isa), gemms[BF16].name(isa), dot.name(isa)
	if bf16 == fp32 {
		bf16 += ", inputs rounded to bfloat16 and multiplied as float32"
	}
	return fp32, bf16, vector
}
