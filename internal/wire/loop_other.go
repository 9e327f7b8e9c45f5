//go:build !linux

package wire

// Loops read for connections where the system has what they need. Here it has
// not.
type Loops struct{}

// NewLoops returns nil, which Options takes: a goroutine reads for each connection.
func NewLoops(int, func(error)) (*Loops, error) { return nil, nil }

// Close has nothing to end.
func (*Loops) Close() {}

type loop struct{}

func (*loop) post(*Conn) {}
func (*loop) endTurn()   {}

func (c *Conn) join() bool { return false }
