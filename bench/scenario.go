package bench

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// A Bar is a figure and the most or least that it may be.
type Bar struct {
	Name  string
	Unit  string  // "" for a ratio
	Most  float64 // the bar, if Least is not set
	Least float64
}

// Limit is the bar as it is printed.
func (b Bar) Limit() string {
	if b.Least != 0 {
		return ">= " + figure(b.Least, b.Unit)
	}
	return "<= " + figure(b.Most, b.Unit)
}

func (b Bar) holds(v float64) bool {
	if b.Least != 0 {
		return v >= b.Least
	}
	return v <= b.Most
}

// figure prints a number with three digits or so and its unit.
func figure(v float64, unit string) string {
	switch {
	case v == float64(int64(v)) && unit != "":
		return fmt.Sprintf("%.0f %s", v, unit)
	case unit == "":
		return fmt.Sprintf("%.2f", v)
	case v < 100:
		return fmt.Sprintf("%.2f %s", v, unit)
	}
	return fmt.Sprintf("%.0f %s", v, unit)
}

// A Scenario measures the figures of one or more bars together: those that
// share rounds.
type Scenario struct {
	Bars []Bar
	Long bool // does not finish in minutes
	// Run fills in a figure for each of the bars, by name.
	Run func(ctx context.Context, r *Rig, f Figures) error
}

// Figures are what a scenario found, by the name of the bar.
type Figures map[string]Figure

// A Figure is what was measured for a bar, or why it was not.
type Figure struct {
	Spread
	Missing error  // a program that is not installed
	Note    string // what it is made of
}

// Verdicts on a bar.
const (
	Pass    = "PASS"
	Fail    = "FAIL"
	Skipped = "SKIP" // a program is missing that only the comparison needs
)

// An Outcome is one bar's line.
type Outcome struct {
	Name    string    `json:"name"`
	Figure  *float64  `json:"figure,omitempty"`
	Low     *float64  `json:"low,omitempty"`
	High    *float64  `json:"high,omitempty"`
	Unit    string    `json:"unit,omitempty"`
	Bar     string    `json:"bar"`
	Verdict string    `json:"verdict"`
	Note    string    `json:"note,omitempty"`
	Date    time.Time `json:"date"`
}

// Line is the outcome as it is printed: name, figure, bar, verdict.
func (o Outcome) Line() string {
	text := strings.Join(strings.Fields(o.Note), " ") // a program's last words may have lines
	if o.Figure != nil {
		text = figure(*o.Figure, o.Unit)
		if o.Low != nil && *o.Low != *o.High {
			text += fmt.Sprintf(" (%s..%s)", figure(*o.Low, ""), figure(*o.High, ""))
		}
	}
	return fmt.Sprintf("%-34s  %-24s  %-12s  %s", o.Name, text, o.Bar, o.Verdict)
}

// scenarioTime bounds a scenario that hangs in spite of all the bounds within.
const scenarioTime = 15 * time.Minute

// Judge runs a scenario and returns an outcome for each of its bars. Whatever
// goes wrong fails all of them.
func (s *Scenario) Judge(ctx context.Context, r *Rig) []Outcome {
	limit := scenarioTime
	if s.Long {
		limit += settleTime(r.Soak) + r.Soak
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	defer r.Clear()
	figures := Figures{}
	err := s.Run(ctx, r, figures)
	var out []Outcome
	for _, b := range s.Bars {
		f, ok := figures[b.Name]
		delete(figures, b.Name)
		out = append(out, b.judge(f, ok, err))
	}
	for _, name := range slices.Sorted(maps.Keys(figures)) {
		out = append(out, Outcome{Name: name, Verdict: Fail, Note: "a figure without a bar"})
	}
	return out
}

func (b Bar) judge(f Figure, have bool, err error) Outcome {
	o := Outcome{Name: b.Name, Unit: b.Unit, Bar: b.Limit(), Note: f.Note, Date: time.Now().UTC().Truncate(time.Second)}
	switch {
	case err != nil:
		o.Verdict, o.Note = Fail, err.Error()
		return o
	case have && f.Missing != nil:
		o.Verdict, o.Note = Skipped, f.Missing.Error()
		return o
	case !have:
		o.Verdict, o.Note = Fail, errNoFigure.Error()
		return o
	}
	o.Figure, o.Low, o.High = &f.Median, &f.Low, &f.High
	o.Verdict = Pass
	if !b.holds(f.Median) || f.Median != f.Median {
		o.Verdict = Fail
	}
	return o
}

var errNoFigure = errors.New("the scenario found no figure")

// Scenarios are all there are, in the order in which they run.
func Scenarios() []Scenario {
	return []Scenario{
		harness(),
		allocationsAndGoroutines(),
		callAllocations(),
		idleMemory(),
		resets(),
		idleProcess(),
		starts(),
		routeChanges(),
		crashes(),
		lives(),
		slowReader(),
		oneConnection(),
		bulkBesideSmall(),
		meshCost(32, 4, 1.35),
		meshCost(256, 8, 1.50),
		callCost(32, 4, 1.80),
		proxyCost(),
		generatorCost(32, 4),
		generatorCost(256, 8),
		generatorTruth(),
		telemetryCost(),
		stagesAddUp(),
		stagesInPlace(),
		soak(),
		floods(false),
		floods(true),
		memoryLadder(),
	}
}
