package kernel

import "testing"

// eachISA runs a test once at every level, by name; a level that the machine or
// the build lacks is skipped by name.
func eachISA(t *testing.T, test func(t *testing.T)) {
	defer func(level ISA) { isa = level }(isa)
	for level := Portable; level <= AMX; level++ {
		t.Run(level.String(), func(t *testing.T) {
			if level > detected {
				t.Skipf("this machine or build has no %s", level)
			}
			isa = level
			test(t)
		})
	}
}

func TestChooseISA(t *testing.T) {
	for _, c := range []struct {
		name string
		want ISA
	}{{"", detected}, {"portable", Portable}, {"amx", detected}, {"nonsense", detected}} {
		if got := choose(c.name); got != c.want {
			t.Errorf("%s=%q chose %s, want %s", isaEnv, c.name, got, c.want)
		}
	}
}
