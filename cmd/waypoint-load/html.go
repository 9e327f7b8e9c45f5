package main

import (
	"fmt"
	"html/template"
	"io"
	"math"
	"time"

	"github.com/sandwich-mesh/sandwich/bench/load"
)

// page is the report. It asks for nothing from anywhere: no script, no font, no
// image that is not in it.
var page = template.Must(template.New("report").Parse(`<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"/>
<title>waypoint-load: {{.Headline}}</title>
<style>
body { font: 15px/1.45 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color: #222; background: #fff }
h1 { font-size: 1.3em } h2 { font-size: 1.05em; margin-top: 2em }
table { border-collapse: collapse } td, th { padding: .15em .8em .15em 0; text-align: right; font-variant-numeric: tabular-nums }
td:first-child, th:first-child, table.rows td { text-align: left }
.bad { border-left: .4em solid #c0392b; padding: .5em 1em; background: #fbeae8 }
svg { width: 100%; height: auto } svg text { font: 11px system-ui, sans-serif; fill: #555 } .grid { stroke: #ddd } .c0 { stroke: #1f6feb; fill: #1f6feb } .c1 { stroke: #d9730d; fill: #d9730d } .c2 { stroke: #6b7280; fill: #6b7280 } .c3 { stroke: #c0392b; fill: #c0392b }
polyline { fill: none !important; stroke-width: 1.8 } svg .key { stroke: none }
footer { margin-top: 3em; color: #666; font-size: .85em }
</style>
</head>
<body>
<h1>{{.Headline}}</h1>
{{if .Result.Bound}}<p class="bad"><b>Not valid:</b> {{.Result.Bound}}</p>{{end}}
<table>
<tr><th></th>{{range .Columns}}<th>{{.}}</th>{{end}}</tr>
{{range .Lines}}<tr><td>{{.Name}}</td>{{range .Cells}}<td>{{.}}</td>{{end}}</tr>
{{end}}</table>
<p>{{.Meaning}}</p>
<table class="rows">
{{range .Rows}}<tr><td>{{index . 0}}</td><td>{{index . 1}}</td></tr>
{{end}}</table>
{{if .Result.Why}}<h2>First failures</h2>
<ul>{{range .Result.Why}}<li>{{.}}</li>{{end}}</ul>{{end}}
{{range .Charts}}<h2>{{.Title}}</h2>
<svg viewBox="0 0 {{.Width}} {{.Height}}" role="img" aria-label="{{.Title}}">
{{range .Y}}<line class="grid" x1="{{$.Left}}" x2="{{$.Right}}" y1="{{.At}}" y2="{{.At}}"/><text x="{{$.LabelRight}}" y="{{.At}}" dy="4" text-anchor="end">{{.Label}}</text>
{{end}}{{range .X}}<text x="{{.At}}" y="{{$.LabelBottom}}" text-anchor="middle">{{.Label}}</text>
{{end}}{{range .Lines}}<polyline class="{{.Class}}" points="{{.Points}}"/>
{{range .Dots}}<circle class="{{.Class}}" cx="{{.X}}" cy="{{.Y}}" r="2"/>{{end}}<text class="key {{.Class}}" x="{{.KeyX}}" y="14">{{.Name}}</text>
{{end}}</svg>
{{end}}<footer>waypoint-load {{.Result.Version}}, {{.Result.Began.Format "2006-01-02 15:04:05 MST"}}, {{.Result.Machine}}</footer>
</body>
</html>
`))

// Where a chart's parts are, in its own units.
const (
	chartWidth, chartHeight = 760, 260
	chartLeft, chartRight   = 70, 735
	chartTop, chartBottom   = 26, 232
)

// A report is what the page shows.
type report struct {
	Headline, Meaning       string
	Result                  *load.Result
	Columns                 []string
	Lines                   []summaryLine
	Rows                    [][2]string
	Charts                  []chart
	Left, Right             int
	LabelRight, LabelBottom int
}

type chart struct {
	Title         string
	Width, Height int
	X, Y          []mark
	Lines         []curve
}

// A mark is a place on an axis with what stands there.
type mark struct {
	At    float64
	Label string
}

type curve struct {
	Name, Class, Points string
	KeyX                int
	Dots                []dot // of a curve with a single point
}

type dot struct {
	Class string
	X, Y  float64
}

// A line is a curve before it is drawn.
type line struct {
	name string
	x, y []float64
}

func writeHTML(w io.Writer, r *load.Result) error {
	lines, meaning := summaries(r)
	return page.Execute(w, &report{Headline: headline(r), Meaning: meaning, Result: r, Columns: columns, Lines: lines, Rows: rows(r),
		Charts: charts(r), Left: chartLeft, Right: chartRight, LabelRight: chartLeft - 6, LabelBottom: chartBottom + 18})
}

func charts(r *load.Result) []chart {
	all := []chart{percentiles(r)}
	at := func(value func(p *load.Point) float64) (x, y []float64) {
		for i := range r.Points {
			x, y = append(x, r.Points[i].At), append(y, value(&r.Points[i]))
		}
		return x, y
	}
	over := func(name string, value func(p *load.Point) float64) line {
		x, y := at(value)
		return line{name, x, y}
	}
	all = append(all, drawn("Latency over time", duration, true,
		over("p50", func(p *load.Point) float64 { return p.P50.Seconds() }),
		over("p99", func(p *load.Point) float64 { return p.P99.Seconds() }),
		over("max", func(p *load.Point) float64 { return p.Max.Seconds() }),
		over("lag p99", func(p *load.Point) float64 { return p.Lag.Seconds() })))
	all = append(all, drawn("Requests a second", perSecond, false,
		over("answered", func(p *load.Point) float64 { return p.Rate }),
		over("sent", func(p *load.Point) float64 { return p.Sent })))
	if r.Failed > 0 {
		all = append(all, drawn("Failures in each second", plain, false, over("failed", func(p *load.Point) float64 { return float64(p.Failed) })))
	}
	cores := []line{over("generator", func(p *load.Point) float64 { return p.Own })}
	if r.Target != nil {
		cores = append(cores, over("target", func(p *load.Point) float64 { return p.Cores }))
	}
	all = append(all, drawn("CPU, in cores", plain, false, cores...))
	if r.Target != nil {
		all = append(all, drawn("Memory of the target", memory, false, over("resident", func(p *load.Point) float64 { return float64(p.Memory) })))
	}
	return all
}

// percentiles draws latency by percentile; each nine takes the same room.
func percentiles(r *load.Result) chart {
	var lines []line
	for _, d := range []struct {
		name string
		s    *load.Summary
	}{{"latency", &r.Latency}, {"service", &r.Service}, {"lag", &r.Lag}} {
		if d.s.Count == 0 || d.name == "latency" && r.Spec.Schedule.Shape == load.Closed {
			continue
		}
		l := line{name: d.name}
		for nines := 0.0; nines <= 5; nines += 0.05 {
			if math.Pow(10, nines) > float64(d.s.Count) {
				break // nobody was there
			}
			l.x = append(l.x, nines)
			l.y = append(l.y, d.s.At(100*(1-math.Pow(10, -nines))).Seconds())
		}
		lines = append(lines, l)
	}
	c := drawn("Latency by percentile", duration, true, lines...)
	c.X = nil
	most := extent(lines, func(l *line) []float64 { return l.x })
	for i, label := range []string{"0 %", "90 %", "99 %", "99.9 %", "99.99 %", "99.999 %"} {
		if float64(i) <= most {
			c.X = append(c.X, mark{across(float64(i), most), label})
		}
	}
	return c
}

// What a chart's values are.
type measure func(float64) string

func duration(v float64) string  { return short(time.Duration(v * 1e9)) }
func perSecond(v float64) string { return rate(v) }
func memory(v float64) string    { return amount(v) }
func plain(v float64) string     { return digits(v) }

func extent(lines []line, of func(l *line) []float64) float64 {
	most := 0.0
	for i := range lines {
		for _, v := range of(&lines[i]) {
			most = max(most, v)
		}
	}
	return most
}

// across is the place of x on an axis that ends with most.
func across(x, most float64) float64 {
	if most == 0 {
		return chartLeft
	}
	return tenth(chartLeft + (chartRight-chartLeft)*x/most)
}

func tenth(v float64) float64 { return math.Round(10*v) / 10 }

// drawn makes a chart. Its y axis begins at zero, or is logarithmic.
func drawn(title string, label measure, log bool, lines ...line) chart {
	c := chart{Title: title, Width: chartWidth, Height: chartHeight}
	right := extent(lines, func(l *line) []float64 { return l.x })
	up, marks := axis(lines, log)
	for _, v := range marks {
		c.Y = append(c.Y, mark{up(v), label(v)})
	}
	for i := range 6 {
		x := right * float64(i) / 5
		c.X = append(c.X, mark{across(x, right), fmt.Sprintf("%.3gs", x)})
	}
	for i, l := range lines {
		k := curve{Name: l.name, Class: "c" + string(rune('0'+i)), KeyX: chartLeft + 110*i}
		for j := range l.x {
			x, y := across(l.x[j], right), up(l.y[j])
			k.Points += fmt.Sprintf("%g,%g ", x, y)
			if len(l.x) == 1 {
				k.Dots = append(k.Dots, dot{k.Class, x, y})
			}
		}
		c.Lines = append(c.Lines, k)
	}
	return c
}

// axis returns the height of a value, and which values are marked.
func axis(lines []line, log bool) (up func(float64) float64, marks []float64) {
	top := extent(lines, func(l *line) []float64 { return l.y })
	if top == 0 {
		top = 1
	}
	const span = chartBottom - chartTop
	if !log {
		for i := range 5 {
			marks = append(marks, top*float64(i)/4)
		}
		return func(v float64) float64 { return tenth(chartBottom - span*v/top) }, marks
	}
	low := top
	for _, l := range lines {
		for _, v := range l.y {
			if v > 0 {
				low = min(low, v)
			}
		}
	}
	first, last := math.Floor(math.Log10(low)), math.Ceil(math.Log10(top))
	last = max(last, first+1)
	for e := first; e <= last; e++ {
		marks = append(marks, math.Pow(10, e))
	}
	return func(v float64) float64 {
		if v <= 0 {
			return chartBottom
		}
		return tenth(chartBottom - span*(math.Log10(v)-first)/(last-first))
	}, marks
}
