package filters

import "time"

// A Stage is one of the parts into which the time of a request is divided. They
// follow one another, so that together they are the time from the request's
// first byte to its end.
type Stage uint8

// The stages. A second attempt adds to those of the first.
const (
	StageQueue     Stage = iota // it waited behind others of its connection
	StageDetect                 // the protocol of its connection was being found out
	StageAccept                 // its head was coming in
	StageFilters                // filters worked on it, or waited
	StageBackoff                // it waited for its next attempt
	StagePool                   // it waited for a mesh connection
	StageConnect                // its inner connection was being opened
	StageFirstByte              // the endpoint had it, or was getting it
	StageBody                   // the response was under way
	Stages
)

func (s Stage) String() string {
	if s >= Stages {
		return "unknown stage"
	}
	return [Stages]string{"queue", "detect", "accept", "filters", "backoff", "pool", "connect", "first_byte", "body"}[s]
}

// Times say how long each stage took.
type Times [Stages]time.Duration

// Sum returns the time of all stages.
func (t *Times) Sum() (d time.Duration) {
	for _, one := range t {
		d += one
	}
	return d
}

// Spent reports whether Spend would have nothing to add.
func (s *Stream) Spent(sinceStart time.Duration) bool { return sinceStart <= s.spent }

// Spend says that the time since the last call, or since Start, went into st. It
// is now so long since Start; less than the last time counts for nothing, because
// a turn's clock may be older than one that was read for itself.
func (s *Stream) Spend(st Stage, sinceStart time.Duration) {
	if d := sinceStart - s.spent; d > 0 {
		s.Times[st] += d
		s.spent = sinceStart
	}
}
