package house

import "testing"

// rules are what holds everywhere in the tree. Each returns a sentence for
// every place that breaks it, and has a control in control_test.go.
var rules = []struct {
	name  string
	check func(*tree) []string
}{
	{"floors", checkFloors},
	{"sources", checkSources},
	{"doors", checkDoors},
	{"package comments", checkComments},
	{"format", checkFormat},
	{"sizes", checkSizes},
	{"globals", checkGlobals},
	{"goroutines", checkGoroutines},
	{"sleeps", checkSleeps},
	{"missing", checkMissing},
	{"clocks", checkClocks},
	{"names", checkNames},
	{"words", checkWords},
	{"pages", checkPages},
	{"examples", checkExamples},
	{"walk", checkWalk},
	{"floor table", checkFloorTable},
	{"glossary", checkGlossary},
}

func TestHouse(t *testing.T) {
	tr, err := load("../..")
	if err != nil {
		t.Fatal(err)
	}
	tr.allowed = exceptions
	if len(tr.gos) == 0 {
		t.Fatal("found no Go files: the rules would hold for want of anything to look at")
	}
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			for _, sentence := range r.check(tr) {
				t.Error(sentence)
			}
		})
	}
}
