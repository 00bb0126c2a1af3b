package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"
)

// ui is how the commands speak: results on standard output; progress and
// messages on standard error, as bars on a terminal and as lines elsewhere.
type ui struct {
	json, quiet bool
	bars        *mpb.Progress // nil when not on a terminal
	mu          sync.Mutex
}

func (u *ui) start() {
	if !u.quiet && term.IsTerminal(int(os.Stderr.Fd())) {
		u.bars = mpb.New(mpb.WithOutput(os.Stderr), mpb.WithWidth(48), mpb.WithAutoRefresh())
	}
}

// close ends the bars and leaves them as they stand.
func (u *ui) close() {
	if u.bars != nil {
		u.bars.Wait()
		u.bars = nil
	}
}

// say prints a message for the user.
func (u *ui) say(format string, args ...any) {
	if u.quiet {
		return
	}
	line := fmt.Sprintf(format, args...) + "\n"
	if u.bars != nil {
		io.WriteString(u.bars, line)
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	io.WriteString(os.Stderr, line)
}

// result prints what a command found: v as JSON when asked for, else text.
func (u *ui) result(v any, text func(w io.Writer)) error {
	u.close()
	if !u.json {
		var b strings.Builder
		text(&b)
		_, err := io.WriteString(os.Stdout, b.String())
		return err
	}
	e := json.NewEncoder(os.Stdout)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// progress shows how far a long work is, with its rate and the time left.
type progress struct {
	u       *ui
	name    string
	unit    string
	bar     *mpb.Bar
	total   int
	done    int
	start   time.Time
	printed time.Time
	note    string
	taken   float64 // seconds, once ended
	mu      sync.Mutex
}

// progress begins a line of progress; total may be 0 until it is known.
func (u *ui) progress(name, unit string, total int) *progress {
	p := &progress{u: u, name: name, unit: unit, total: total, start: time.Now()}
	p.printed = p.start
	if u.bars == nil {
		return p
	}
	p.bar = u.bars.New(int64(total),
		mpb.BarStyle().Lbound("").Filler("━").Tip("━").Padding("─").Rbound(""),
		mpb.PrependDecorators(decor.Name(pad(name, 22)), decor.CountersNoUnit("%5d / %-5d", decor.WCSyncSpace)),
		mpb.AppendDecorators(decor.Any(func(s decor.Statistics) string { return p.tail(int(s.Current), s.Completed) })),
	)
	return p
}

// tail is rate, time left (or taken) and note.
func (p *progress) tail(done int, completed bool) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	taken := time.Since(p.start).Seconds()
	if completed {
		taken = p.taken
	}
	if done == 0 || taken == 0 {
		return " " + p.note
	}
	rate := float64(done) / taken
	text := fmt.Sprintf(" %s %s/s", significant(rate), p.unit)
	if !completed {
		text += ", " + clock(float64(p.total-done)/rate) + " left"
	}
	if p.note != "" {
		text += "  " + p.note
	}
	return text
}

// set tells how much is done of how much, with a note such as the loss.
func (p *progress) set(done, total int, note string) {
	p.mu.Lock()
	p.done, p.total, p.note = done, total, note
	p.mu.Unlock()
	if p.bar != nil {
		p.bar.SetTotal(int64(total), false)
		p.bar.SetCurrent(int64(done))
		return
	}
	const every = 5 * time.Second
	if p.u.quiet || time.Since(p.printed) < every {
		return
	}
	p.printed = time.Now()
	p.u.say("%s: %d of %d%s", p.name, done, total, p.tail(done, false))
}

// seconds is how long the work has taken so far.
func (p *progress) seconds() float64 { return time.Since(p.start).Seconds() }

// end completes the line.
func (p *progress) end() {
	p.mu.Lock()
	p.taken = time.Since(p.start).Seconds()
	p.mu.Unlock()
	if p.bar != nil {
		p.bar.SetTotal(int64(max(p.done, 1)), true)
		return
	}
	if time.Since(p.start) > 2*time.Second {
		p.u.say("%s: %s in %s", p.name, count(p.done, p.unit), clock(p.taken))
	}
}

// stop ends the line where it is, when the work has failed.
func (p *progress) stop() {
	if p.bar != nil {
		p.bar.Abort(false)
	}
}

// drop takes the line away.
func (p *progress) drop() {
	if p.bar != nil {
		p.bar.Abort(true)
	}
}

// stages are works that follow one another, each with a line of its own.
type stages struct {
	u    *ui
	name string
	at   *progress
	drop bool // lines go when their work ends; otherwise they stay
}

// set tells how far the stage of that name is; another name begins another stage.
func (s *stages) set(name, unit string, done, total int, note string) {
	if total == 0 {
		return // not known yet
	}
	if s.at == nil || name != s.name {
		s.end()
		s.name, s.at = name, s.u.progress(name, unit, total)
	}
	s.at.set(done, total, note)
}

// end ends the stage under way, if there is one.
func (s *stages) end() {
	if s.at != nil {
		if s.drop {
			s.at.drop()
		} else {
			s.at.end()
		}
	}
	s.at = nil
}

// stop leaves the stage where it is, when the work has failed.
func (s *stages) stop() {
	if s.at != nil {
		s.at.stop()
	}
}

// count is a number of things in words.
func count(n int, one string) string {
	if n == 1 || one == "%" || one == "B" {
		return fmt.Sprintf("%d %s", n, one)
	}
	return fmt.Sprintf("%d %ss", n, one)
}

// clock is a time for people.
func clock(seconds float64) string {
	switch {
	case seconds < 10:
		return fmt.Sprintf("%.1f s", seconds)
	case seconds < 100:
		return fmt.Sprintf("%.0f s", seconds)
	case seconds < 6000:
		return fmt.Sprintf("%.0f min", seconds/60)
	}
	return fmt.Sprintf("%.1f h", seconds/3600)
}

// significant prints a number of at least 0 with three digits, whole numbers
// below 10,000 with all of theirs.
func significant(x float64) string {
	unit := ""
	for _, u := range []string{"k", "M", "G", "T"} {
		if x < 999.5 || unit == "" && x < 9999.5 {
			break
		}
		x, unit = x/1e3, u
	}
	switch {
	case x >= 99.95 || x == 0:
		return fmt.Sprintf("%.0f%s", x, unit)
	case x >= 9.995:
		return fmt.Sprintf("%.1f%s", x, unit)
	case x >= 0.9995:
		return fmt.Sprintf("%.2f%s", x, unit)
	}
	return fmt.Sprintf("%.3g", x)
}

// bytesText is a size for people.
func bytesText(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.2f GB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f kB", float64(n)/(1<<10))
}

// table prints rows with aligned columns under a rule: the first column to the
// left, the others to the right.
func table(w io.Writer, head []string, rows [][]string) {
	width := make([]int, len(head))
	for _, row := range append([][]string{head}, rows...) {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	line := func(cells []string) {
		for i, cell := range cells {
			gap := strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell))
			if i == 0 {
				fmt.Fprint(w, "  ", cell, gap)
			} else {
				fmt.Fprint(w, "   ", gap, cell)
			}
		}
		fmt.Fprintln(w)
	}
	line(head)
	total := 2
	for i := range width {
		total += width[i] + 3
	}
	fmt.Fprintln(w, "  "+strings.Repeat("─", total-5))
	for _, row := range rows {
		line(row)
	}
}

func pad(s string, n int) string {
	return s + strings.Repeat(" ", max(1, n-utf8.RuneCountInString(s)))
}
