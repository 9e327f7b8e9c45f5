package admin

import (
	"context"
	"encoding/json"
	"html/template"
	"io"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"
)

// A Page shows something.
type Page struct {
	Path, About string
	// Tables are what it shows, in any of the forms. The query may narrow it.
	Tables func(q url.Values) ([]Table, error)
	// Write is for a page that has a form of its own, in place of Tables. What it
	// emits leaves at once, and it may go on until ctx ends.
	Write func(ctx context.Context, q url.Values, emit func([]byte) error) error
	// ContentType is that of Write; plain text if empty.
	ContentType string
}

// An Action changes something. Its answer is a sentence.
type Action struct {
	Path, About string
	Do          func(q url.Values) (string, error)
}

// A Table is rows under a head. In JSON a row is an object, whose keys are the
// head in lower case with underscores.
type Table struct {
	Title string
	Head  []string
	Rows  [][]string
}

// A form is how a page is written.
type form uint8

const (
	text form = iota
	page
	object
)

// formOf is what the caller asks for: format=json, text or html, or by Accept;
// text for those that say nothing, as curl does.
func formOf(r *http.Request) form {
	switch r.FormValue("format") {
	case "json":
		return object
	case "html":
		return page
	case "text":
		return text
	}
	switch accept := r.Header.Get("Accept"); {
	case strings.Contains(accept, "text/html"):
		return page
	case strings.Contains(accept, "application/json"):
		return object
	}
	return text
}

func writeTables(w http.ResponseWriter, f form, about string, tables []Table) error {
	switch f {
	case object:
		w.Header().Set("Content-Type", "application/json")
		return writeJSON(w, tables)
	case page:
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		return layout.Execute(w, struct {
			About  string
			Tables []Table
		}{about, tables})
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	return writeText(w, tables)
}

func writeText(w io.Writer, tables []Table) error {
	for i, t := range tables {
		if i > 0 {
			io.WriteString(w, "\n")
		}
		if t.Title != "" {
			io.WriteString(w, t.Title+"\n")
		}
		tab := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
		line := func(cells []string) {
			io.WriteString(tab, strings.Join(cells, "\t")+"\n")
		}
		if len(t.Head) > 0 {
			line(t.Head)
		}
		for _, r := range t.Rows {
			line(r)
		}
		if err := tab.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// writeJSON writes {"title": [{"column": "cell"}]}. Keys keep their order.
func writeJSON(w io.Writer, tables []Table) error {
	var b strings.Builder
	b.WriteByte('{')
	for i, t := range tables {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString("\n" + quote(keyOf(t.Title)) + ": [")
		for j, r := range t.Rows {
			if j > 0 {
				b.WriteByte(',')
			}
			b.WriteString("\n  {")
			for k, cell := range r {
				if k > 0 {
					b.WriteString(", ")
				}
				b.WriteString(quote(keyOf(t.Head[k])) + ": " + quote(cell))
			}
			b.WriteByte('}')
		}
		b.WriteByte(']')
	}
	b.WriteString("\n}\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func keyOf(s string) string {
	if s == "" {
		return "rows"
	}
	return strings.ReplaceAll(strings.ToLower(s), " ", "_")
}

func quote(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		return `""` // no string is refused
	}
	return string(b)
}

// layout is how browsers see a page. It loads nothing from elsewhere.
var layout = template.Must(template.New("page").Parse(`<!doctype html>
<meta charset="utf-8"><title>waypoint: {{.About}}</title>
<style>
body { font: 14px/1.4 system-ui, sans-serif; margin: 2em; color: #222; background: #fff }
table { border-collapse: collapse; margin-bottom: 2em } td, th { padding: .2em .8em; text-align: left; border-bottom: 1px solid #ddd; vertical-align: top }
td { font-family: ui-monospace, monospace; white-space: pre-wrap }
</style>
<p><a href="/">waypoint</a> · {{.About}}</p>
{{range .Tables}}{{with .Title}}<h2>{{.}}</h2>{{end}}
<table>{{with .Head}}<tr>{{range .}}<th>{{.}}</th>{{end}}</tr>{{end}}
{{range .Rows}}<tr>{{range .}}<td>{{.}}</td>{{end}}</tr>
{{end}}</table>
{{end}}`))
