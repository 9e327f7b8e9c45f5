package house

import (
	"strings"
	"testing"

	"github.com/sandwich-mesh/sandwich/proxy/config"
)

// TestReadmeConfiguration: what the README shows is a document that `waypoint
// check` has nothing to say about.
func TestReadmeConfiguration(t *testing.T) {
	blocks := yamlBlocks(readRoot(t, "README.md"))
	if len(blocks) == 0 {
		t.Fatal("README.md shows no configuration")
	}
	for _, text := range blocks {
		for _, p := range problemsOf(text) {
			t.Errorf("README.md: %s: %s", p.Subject(), p.Message)
		}
	}
	// The control: a field that nobody knows is a problem.
	if bad := strings.Replace(blocks[0], "addresses:", "adresses:", 1); len(problemsOf(bad)) == 0 {
		t.Error("a misspelt field was not noticed")
	}
}

func problemsOf(text string) []config.Problem {
	c, problems := config.Decode(config.File{Name: "README.md", Data: []byte(text)})
	if c == nil {
		return problems
	}
	settled := config.Settle(nil, c).Config
	return append(append(problems, config.References(settled)...), config.Lint(settled)...)
}

func yamlBlocks(page string) (list []string) {
	for i, part := range strings.Split(page, "\n```") {
		if text, ok := strings.CutPrefix(part, "yaml\n"); ok && i%2 == 1 {
			list = append(list, text)
		}
	}
	return list
}
