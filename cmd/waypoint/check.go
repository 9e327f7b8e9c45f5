package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/sandwich-mesh/sandwich/hbone"
	"github.com/sandwich-mesh/sandwich/internal/refpool"
	"github.com/sandwich-mesh/sandwich/proxy/config"
	"github.com/sandwich-mesh/sandwich/proxy/snapshot"
)

// exitCode is an error that has been shown already.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

// Exit codes of check; 0 is a document without errors.
const (
	exitProblems exitCode = 1
	exitNoRun    exitCode = 2
)

// checkCommand reads a document as serve would and says what is wrong with it.
func checkCommand() *cobra.Command {
	var path, output string
	cmd := &cobra.Command{
		Use:   "check --config FILE-OR-DIR",
		Short: "Say what is wrong with a configuration document",
		Long: `Check reads a document as serve would and lists every problem, with its code,
where it is written, the object it belongs to and what to write instead.

Exit codes: 0 no errors (warnings are allowed), 1 errors, 2 check could not run.`,
		Example: `  waypoint check --config waypoint.yaml
  waypoint check --config conf.d -o json`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("%q is not understood: write --config %s", args[0], args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if path == "" {
				return errors.New("no document: write --config FILE-OR-DIR")
			}
			if output != "table" && output != "json" {
				return fmt.Errorf("-o %s is not understood: write -o table or -o json", output)
			}
			return check(path).print(cmd.OutOrStdout(), output)
		},
	}
	cmd.Flags().StringVarP(&path, "config", "c", "", "the document: a file, or a directory of *.yaml, *.yml and *.json")
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	return cmd
}

// findings are what check found out.
type findings struct {
	Config   string           `json:"config"`
	Errors   int              `json:"errors"`
	Warnings int              `json:"warnings"`
	Objects  objects          `json:"objects"`
	Problems []config.Problem `json:"problems"`
	Closed   []closed         `json:"closed"`
	unread   bool
}

type objects struct {
	Active int `json:"active"`
	Total  int `json:"total"`
}

// closed is a service that would not be served as it should be.
type closed struct {
	Service string    `json:"service"`
	Effect  string    `json:"effect"`
	By      config.ID `json:"by"`
}

func check(path string) *findings {
	f := &findings{Config: path, Problems: []config.Problem{}, Closed: []closed{}}
	c, problems := config.Load(path)
	if c != nil {
		snap, found := snapshot.Compile(c, nil, snapshot.Env{Registry: kinds(), Shared: new(refpool.Pool), Pool: hbone.NewPool(hbone.PoolOptions{})})
		s := snap.Settled()
		snap.Retire()
		problems = append(problems, found...)
		problems = append(problems, config.Lint(s.Config)...)
		config.Sort(problems)
		f.Objects = objects{s.Active, s.Total}
		for _, x := range s.Config.Closed {
			effect := "requests that no other route takes are answered 500"
			switch {
			case x.Role == config.RolePolicy:
				effect = "all requests are denied"
			case x.By.Kind == "TCPRoute" || x.By.Kind == "TLSRoute":
				effect = "connections that no other route takes are refused"
			}
			for _, key := range x.Services {
				f.Closed = append(f.Closed, closed{key.String(), effect, x.By})
			}
		}
	}
	for i := range problems {
		if problems[i].Severity == config.Error {
			f.Errors++
		} else {
			f.Warnings++
		}
		f.unread = f.unread || problems[i].Code == config.CodeUnreadable
	}
	f.Problems = append(f.Problems, problems...)
	return f
}

// print shows the findings and returns the exit code, if it is not 0.
func (f *findings) print(w io.Writer, output string) error {
	var err error
	if output == "json" {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		err = enc.Encode(f)
	} else {
		_, err = io.WriteString(w, f.table())
	}
	switch {
	case err != nil:
		return fmt.Errorf("write the findings: %w", err)
	case f.unread:
		return exitNoRun
	case f.Errors > 0:
		return exitProblems
	}
	return nil
}

// table lists problems for people: a line to find it by, then what is wrong and
// what to write.
func (f *findings) table() string {
	var b strings.Builder
	rows := [][4]string{{"SEVERITY", "CODE", "WHERE", "OBJECT"}}
	for i := range f.Problems {
		p := &f.Problems[i]
		rows = append(rows, [4]string{p.Severity.String(), string(p.Code), visible(p.Where()), visible(p.Subject())})
	}
	var width [4]int
	for _, row := range rows {
		for i, cell := range row {
			width[i] = max(width[i], len(cell))
		}
	}
	line := func(row [4]string) {
		fmt.Fprintf(&b, "%-*s  %-*s  %-*s  %s\n", width[0], row[0], width[1], row[1], width[2], row[2], row[3])
	}
	if len(f.Problems) > 0 {
		line(rows[0])
	}
	indent := strings.Repeat(" ", width[0]+2)
	for i := range f.Problems {
		p := &f.Problems[i]
		line(rows[i+1])
		b.WriteString(indent)
		if p.Field != "" {
			b.WriteString(visible(p.Field) + ": ")
		}
		b.WriteString(visible(p.Message) + "\n")
		if p.Fix != "" {
			b.WriteString(indent + "fix: " + visible(p.Fix) + "\n")
		}
	}
	for _, c := range f.Closed {
		fmt.Fprintf(&b, "closed: Service %s, because of %s: %s\n", visible(c.Service), visible(c.By.String()), c.Effect)
	}
	if len(f.Problems) > 0 {
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "%d of %d objects active, %s, %s\n", f.Objects.Active, f.Objects.Total, count(f.Errors, "error"), count(f.Warnings, "warning"))
	return b.String()
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// visible replaces what a terminal would act on: a document's words are not
// ours.
func visible(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '\ufffd'
	}, s)
}
