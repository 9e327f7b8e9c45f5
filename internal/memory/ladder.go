package memory

// A Step is how short memory is. Each asks for what the ones before it ask for, and
// more.
type Step int32

// The steps of the ladder.
const (
	Calm    Step = iota // nothing is asked for
	Tight               // windows of streams are small
	Crowded             // the connections that hold most are asked to go elsewhere
	Full                // nobody new: connections, tunnels and requests are refused
	Cut                 // the connections that hold most are cut
	Steps
)

func (s Step) String() string {
	return [Steps]string{"calm", "tight", "crowded", "full", "cut"}[s]
}

// Where the steps begin, in percent of the limit. A step is left when the use has
// fallen stepBack below where it began, so that what is done about it does not
// begin and end with each look.
const (
	TightAt   = 50
	CrowdedAt = 60
	FullAt    = 70
	CutAt     = 80
	StepBack  = 10

	// GoLimitAt is the limit that Go's collector is told, in percent.
	GoLimitAt = 85
)

// begins is never written.
var begins = [Steps]uint64{0, TightAt, CrowdedAt, FullAt, CutAt}

// A Ladder is where a process stands.
type Ladder struct {
	Limit uint64 // in bytes
	step  Step
}

// Look says on which step so much use puts the process.
func (l *Ladder) Look(use uint64) Step {
	percent := use * 100 / max(l.Limit, 1)
	for l.step+1 < Steps && percent >= begins[l.step+1] {
		l.step++
	}
	for l.step > Calm && percent < begins[l.step]-StepBack {
		l.step--
	}
	return l.step
}
