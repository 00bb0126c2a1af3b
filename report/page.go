package report

import (
	"bytes"
	_ "embed"
	"encoding/csv"
	"errors"
	"fmt"
	"html/template"
	"io"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

//go:embed page.html
var pageText string

//go:embed style.css
var styleText string

//go:embed sort.js
var sortText string

var pageTemplate = template.Must(template.New("page").Parse(pageText))

// page is what the template shows.
type page struct {
	Title    string
	Style    template.CSS
	Script   template.JS
	Tiles    []tile
	Sections []section
}

// tile is one number at the head of the page.
type tile struct{ Label, Value, Note string }

type section struct {
	ID, Title, Lead string
	Tables          []table
	Figures         []figure
	Pictures        []figure // smaller ones, in rows of their own
}

type table struct {
	Title, Note string
	Head        []string
	Words       []bool // columns that are no numbers
	Rows        [][]entry
	CSV         template.URL
	File        string
}

type entry struct {
	Text string
	Sort string // what the column is sorted by, when not by Text
	Best bool
}

type figure struct {
	Title, Note string
	Plot        template.HTML
	Legend      []legend
}

type legend struct{ Name, Class string }

// Write reads the folders of training runs and comparisons and writes the page.
// Errors name the folder and file that could not be read.
func Write(w io.Writer, dirs []string) error {
	if len(dirs) == 0 {
		return errors.New("report: expected folders of training runs or comparisons, found none")
	}
	comparisons, runs, err := read(dirs)
	if err != nil {
		return err
	}
	p := newPage("mlpfusion report")
	for i, c := range comparisons {
		if err := p.comparison(c, fmt.Sprintf("c%d", i+1), len(comparisons) > 1); err != nil {
			return err
		}
	}
	if len(runs) > 0 {
		p.runs(runs)
	}
	return p.write(w)
}

func newPage(title string) *page {
	return &page{Title: title, Style: template.CSS(styleText), Script: template.JS(sortText)}
}

func (p *page) write(w io.Writer) error {
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, p); err != nil {
		return err
	}
	_, err := w.Write(b.Bytes())
	return err
}

// withCSV adds the table's own contents as a file to download, and finds out
// which columns hold words.
func (t table) withCSV(file string) table {
	t.Words = make([]bool, len(t.Head))
	for i := range t.Head {
		t.Words[i] = i == 0 || slices.ContainsFunc(t.Rows, func(row []entry) bool {
			r, _ := utf8.DecodeRuneInString(row[i].Text)
			return unicode.IsLetter(r)
		})
	}
	var b strings.Builder
	w := csv.NewWriter(&b)
	_ = w.Write(t.Head) // a strings.Builder takes everything
	for _, row := range t.Rows {
		line := make([]string, len(row))
		for i, e := range row {
			line[i] = e.Text
		}
		_ = w.Write(line)
	}
	w.Flush()
	t.File = file + ".csv"
	t.CSV = template.URL("data:text/csv;charset=utf-8," + url.PathEscape(b.String()))
	return t
}
