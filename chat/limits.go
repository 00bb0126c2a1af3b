package chat

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ardanlabs/jinja"
)

// What a template may do to one conversation. Those of models stay far below; transformers
// has the limit of range, and of it alone.
const (
	mostRounds = 500_000  // of its loops
	mostCalls  = 50_000   // of its macros, which may call themselves
	mostRange  = 100_000  // numbers of one range
	mostText   = 64 << 20 // bytes of all that it gives names to
)

// The functions that plain has a template call: at the beginning of each round of a loop
// and of each macro, and with what a name is to stand for.
const (
	roundCall = "mlpfusion_round"
	macroCall = "mlpfusion_macro"
	namedCall = "mlpfusion_named"
)

// functions are what a template may call: those of plain, which end one that would not end
// by itself, and those that are better kept than the library's.
func (t *Template) functions() map[string]jinja.Value {
	rounds, calls, text := 0, 0, 0
	count := func(n *int, most int, what string) func([]jinja.Value, map[string]jinja.Value) (jinja.Value, error) {
		return func([]jinja.Value, map[string]jinja.Value) (jinja.Value, error) {
			if *n++; *n > most {
				return jinja.Undefined(), fmt.Errorf("expected at most %d %s for a conversation, found more", most, what)
			}
			return jinja.NewString(""), nil
		}
	}
	named := func(args []jinja.Value, _ map[string]jinja.Value) (jinja.Value, error) {
		if len(args) != 1 {
			return jinja.Undefined(), errors.New("set: expected one value")
		}
		if args[0].IsString() {
			if text += len(args[0].AsString()); text > mostText {
				return jinja.Undefined(), fmt.Errorf("expected at most %d bytes of text in its names, found more", mostText)
			}
		}
		return args[0], nil
	}
	f := map[string]jinja.Value{}
	for name, do := range map[string]func([]jinja.Value, map[string]jinja.Value) (jinja.Value, error){
		roundCall: count(&rounds, mostRounds, "rounds of loops"), macroCall: count(&calls, mostCalls, "calls of macros"), namedCall: named,
		"range": numbers, "strftime_now": t.date,
	} {
		f[name] = jinja.NewCallable(name, do)
	}
	return f
}

// numbers is range.
func numbers(args []jinja.Value, _ map[string]jinja.Value) (jinja.Value, error) {
	var n [3]int64
	for i, a := range args {
		switch {
		case i == len(n):
			return jinja.Undefined(), errors.New("range: expected one to three whole numbers, found more")
		case a.IsInt():
			n[i] = a.AsInt()
		case a.IsFloat() && a.AsFloat() == float64(int64(a.AsFloat())): // as the library's powers are
			n[i] = int64(a.AsFloat())
		default:
			return jinja.Undefined(), fmt.Errorf("range: expected whole numbers, found %s", a)
		}
	}
	from, to, step := n[0], n[1], n[2]
	switch len(args) {
	case 0:
		return jinja.Undefined(), errors.New("range: expected one to three whole numbers, found none")
	case 1:
		from, to = 0, n[0]
	}
	if len(args) < 3 {
		step = 1
	}
	if step == 0 {
		return jinja.Undefined(), errors.New("range: expected a step other than 0")
	}
	var list []jinja.Value
	for i := from; step > 0 && i < to || step < 0 && i > to; i += step {
		if len(list) == mostRange {
			return jinja.Undefined(), fmt.Errorf("range: expected at most %d numbers, found more", mostRange)
		}
		list = append(list, jinja.NewInt(i))
	}
	return jinja.NewList(list), nil
}

// directives are those of strftime that templates use, as Go's layouts.
var directives = map[byte]string{'Y': "2006", 'y': "06", 'm': "01", 'd': "02", 'B': "January", 'b': "Jan", 'A': "Monday", 'a': "Mon",
	'H': "15", 'I': "03", 'M': "04", 'S': "05", 'p': "PM", 'j': "002", 'f': "000000", '%': "%"}

// date is strftime_now, at the template's time.
func (t *Template) date(args []jinja.Value, _ map[string]jinja.Value) (jinja.Value, error) {
	if len(args) != 1 || !args[0].IsString() {
		return jinja.Undefined(), errors.New("strftime_now: expected a format")
	}
	now := t.Now
	if now.IsZero() {
		now = time.Now()
	}
	var out strings.Builder
	for rest := args[0].AsString(); rest != ""; {
		before, after, found := strings.Cut(rest, "%")
		out.WriteString(before)
		if !found {
			break
		}
		after, short := strings.CutPrefix(after, "-") // without a zero in front, as the C library has it
		if after == "" || directives[after[0]] == "" {
			return jinja.Undefined(), fmt.Errorf("strftime_now: expected %%Y, %%m, %%d, %%B and the like, found %q", "%"+after[:min(1, len(after))])
		}
		text := now.Format(directives[after[0]])
		if short {
			text = strings.TrimPrefix(text, "0")
		}
		out.WriteString(text)
		rest = after[1:]
	}
	return jinja.NewString(out.String()), nil
}
