package wire

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandwich-mesh/sandwich/internal/turn"
)

const (
	// maxEvents is how many ready connections one look brings.
	maxEvents = 128
	// yieldAfter is how many looks a loop that always finds work takes before it
	// lets other goroutines run.
	yieldAfter = 32
	// wakeSlot is where a loop's own eventfd stands in its events.
	wakeSlot = -1
)

// Loops read for the connections that were made with them: a few goroutines, each
// with a set of descriptors of its own, in place of one goroutine for each
// connection. All that one look finds ready shares a turn, so that what many
// connections send to one leaves in one write.
type Loops struct {
	all     []*loop
	done    sync.WaitGroup
	onPanic func(error)
}

// NewLoops starts n loops, one for each processor if n is 0. onPanic is told of
// panics that no connection is to blame for; it may be nil. Where the system has
// no event loops the result is nil, which Options takes.
func NewLoops(n int, onPanic func(error)) (*Loops, error) {
	if n == 0 {
		n = runtime.GOMAXPROCS(0)
	}
	ls := &Loops{onPanic: onPanic}
	for range n {
		l, err := newLoop(ls)
		if err != nil {
			ls.Close()
			return nil, err
		}
		ls.all = append(ls.all, l)
		ls.done.Go(l.run)
	}
	return ls, nil
}

// Close ends each loop with its last connection, and returns when all have
// ended. Whoever has connections ends them first.
func (ls *Loops) Close() {
	if ls == nil {
		return
	}
	for _, l := range ls.all {
		l.quitting.Store(true)
		l.wake()
	}
	ls.done.Wait()
	for _, l := range ls.all {
		unix.Close(l.ep)
		unix.Close(l.event)
	}
}

// place chooses the loop with the fewest connections.
func (ls *Loops) place() *loop {
	best := ls.all[0]
	for _, l := range ls.all[1:] {
		if l.conns.Load() < best.conns.Load() {
			best = l
		}
	}
	return best
}

// join takes the connection's descriptor from Go's netpoller and gives it to a
// loop. It reports false, and changes nothing, without loops or if the transport
// has no descriptor.
func (c *Conn) join() bool {
	sc, ok := c.nc.(syscall.Conn)
	if !ok || c.o.Loops == nil {
		return false
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	fd := -1
	err = errors.Join(rc.Control(func(was uintptr) {
		// A copy: an event of the netpoller for a descriptor that nobody waits for
		// would wake a thread each time.
		fd, err = unix.FcntlInt(was, unix.F_DUPFD_CLOEXEC, 0)
	}), err)
	if err != nil || fd < 0 {
		return false
	}
	c.loop = c.o.Loops.place()
	c.turn = &c.loop.turn
	c.drv = &polled{fd: fd, loop: c.loop, nc: c.nc, st: &c.stats}
	c.loop.add(c, c.drv.(*polled))
	c.nc.Close() // the copy stays; addresses do, too
	return true
}

// A loop reads for some connections, on one goroutine.
type loop struct {
	// Set once.
	set   *Loops
	ep    int
	event int // an eventfd that ends a wait

	// Owned by the loop's goroutine.
	turn      turn.Turn
	events    [maxEvents]unix.EpollEvent
	batch     []*Conn
	lingering []*Conn // connections that wait for their peer's end, with a deadline

	// Atomic.
	conns    atomic.Int32
	asleep   atomic.Bool
	quitting atomic.Bool // with the last connection

	// Guarded by mu, a leaf in the lock order.
	mu     sync.Mutex
	slots  []slot
	free   []int32
	posted []*Conn
}

// A slot is where events find their connection. Its count tells an event for one
// that has gone from one for its successor.
type slot struct {
	c    *Conn
	uses int32
}

func newLoop(ls *Loops) (*loop, error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make an event loop: %w", err)
	}
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err == nil {
		err = unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, event, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: wakeSlot})
	}
	if err != nil {
		unix.Close(ep)
		return nil, fmt.Errorf("make an event loop: %w", err)
	}
	l := &loop{set: ls, ep: ep, event: event}
	l.turn.Last()
	return l, nil
}

// add gives a connection a slot. Nothing is read for it before post.
func (l *loop) add(c *Conn, d *polled) {
	l.conns.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.free); n > 0 {
		d.slot, l.free = l.free[n-1], l.free[:n-1]
	} else {
		d.slot = int32(len(l.slots))
		l.slots = append(l.slots, slot{})
	}
	s := &l.slots[d.slot]
	s.c, d.uses = c, s.uses
}

func (l *loop) remove(d *polled) {
	l.mu.Lock()
	s := &l.slots[d.slot]
	s.c = nil
	s.uses++
	l.free = append(l.free, d.slot)
	l.mu.Unlock()
	if l.conns.Add(-1) == 0 && l.quitting.Load() {
		l.wake()
	}
}

// post has the loop look at a connection soon, from any goroutine.
func (l *loop) post(c *Conn) {
	l.mu.Lock()
	if !c.posted {
		c.posted = true
		l.posted = append(l.posted, c)
	}
	l.mu.Unlock()
	if l.asleep.Load() {
		l.wake()
	}
}

var one = []byte{1, 0, 0, 0, 0, 0, 0, 0}

func (l *loop) wake() { _, _ = unix.Write(l.event, one) } // full means that it is awake

// run is the loop: wait, read for whoever is ready, do all that made possible,
// flush. To look again before the flush makes larger batches and lets the far sides
// idle meanwhile: it cost more at 32 streams than it saved at 256.
func (l *loop) run() {
	for looks := 1; ; looks++ {
		l.serve(l.wait())
		spent := l.turn.Spent()
		l.endTurn()
		if l.quitting.Load() && l.conns.Load() == 0 {
			return
		}
		if spent || looks%yieldAfter == 0 {
			runtime.Gosched()
		}
	}
}

// wait returns how many events there are, at once if anybody was posted.
func (l *loop) wait() int {
	l.asleep.Store(true)
	n, err := unix.EpollWait(l.ep, l.events[:], l.timeout())
	l.asleep.Store(false)
	if err != nil {
		return 0 // EINTR
	}
	return n
}

// timeout is how long a wait may last, in milliseconds.
func (l *loop) timeout() int {
	l.mu.Lock()
	posted := len(l.posted) > 0
	l.mu.Unlock()
	if posted || l.quitting.Load() && l.conns.Load() == 0 {
		return 0
	}
	if len(l.lingering) == 0 {
		return -1
	}
	first := l.lingering[0].until
	for _, c := range l.lingering[1:] {
		if c.until.Before(first) {
			first = c.until
		}
	}
	return int(min(max(time.Until(first)/time.Millisecond+1, 0), math.MaxInt32))
}

// serve lets every connection do what it can that has an event, was posted, or
// has waited long enough for its peer's end.
func (l *loop) serve(n int) {
	l.gather(n)
	if len(l.lingering) > 0 {
		l.gatherLate()
	}
	for i, c := range l.batch {
		l.batch[i] = nil
		c.advance()
	}
	l.batch = l.batch[:0]
}

// gather collects whom to serve.
func (l *loop) gather(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.events[:n] {
		e := &l.events[i]
		if e.Fd == wakeSlot {
			var b [8]byte
			_, _ = unix.Read(l.event, b[:])
			continue
		}
		s := &l.slots[e.Fd]
		if s.c == nil || s.uses != e.Pad {
			continue // it has gone since
		}
		if e.Events&^unix.EPOLLIN != 0 {
			s.c.drv.(*polled).happened(e.Events)
		}
		if e.Events&^unix.EPOLLOUT != 0 && !s.c.posted {
			l.batch = append(l.batch, s.c)
		}
	}
	for i, c := range l.posted {
		c.posted = false
		l.batch = append(l.batch, c)
		l.posted[i] = nil
	}
	l.posted = l.posted[:0]
}

func (l *loop) gatherLate() {
	now := time.Now()
	for _, c := range l.lingering {
		if !now.Before(c.until) {
			l.batch = append(l.batch, c)
		}
	}
}

// endTurn ends the turn. A panic in it costs one item, and the turn goes on
// behind it.
func (l *loop) endTurn() {
	for !l.tryEnd() {
	}
}

func (l *loop) tryEnd() (ended bool) {
	defer func() {
		if v := recover(); v != nil && l.set.onPanic != nil {
			l.set.onPanic(&PanicError{Value: v, Stack: debug.Stack()})
		}
	}()
	l.turn.End()
	return true
}

// advance does for a connection what can be done without waiting. It runs on the
// loop's goroutine.
func (c *Conn) advance() {
	if c.gone {
		return
	}
	if !c.begun {
		c.begun = true
		c.begin()
		c.drv.(*polled).listen(true)
	}
	if !c.lingers {
		if !c.readSome() {
			return
		}
		c.readOver()
		c.tellClosed()
		c.lingers = true
		c.unmute()
	}
	for !c.lingered() {
		if !c.drop(false) {
			c.loop.remember(c)
			return
		}
	}
	c.gone = true
	c.loop.forget(c)
	c.release()
	c.reader.Done()
}

// remember sees to it that a connection that lingers is looked at when its time
// is over.
func (l *loop) remember(c *Conn) {
	if !slices.Contains(l.lingering, c) {
		l.lingering = append(l.lingering, c)
	}
}

// forget takes a connection off the list of those that linger.
func (l *loop) forget(c *Conn) {
	if i := slices.Index(l.lingering, c); i >= 0 {
		l.lingering = slices.Delete(l.lingering, i, i+1)
	}
}

// readSome reads once, or finds a reason not to. It reports whether the engine is
// to hear Closed.
func (c *Conn) readSome() (over bool) {
	for !c.over() {
		switch {
		case c.parked.Load() || c.full():
			if !c.mute() {
				return false
			}
			continue
		case c.rec != nil && c.rec.ready():
			c.decrypt()
			continue
		}
		in, size := c.held(), c.readSize()
		b, err := c.drv.read(in, size, false)
		if c.rec != nil {
			c.rec.in = b
		}
		if err == nil {
			c.received(b, len(b)-len(in))
			if c.turn.Spent() {
				c.breathe()
			}
		} else if err != errWouldBlock || c.salvaging {
			c.endTurn() // what came before the end leaves before what the end makes of it
			c.unread(err)
			continue
		}
		if !c.halt.Load() && (c.rec == nil || !c.rec.ready()) && !c.full() {
			return false // the loop will tell when there is more
		}
	}
	return true
}

// mute stops listening until the engine has consumed half of what may be
// unconsumed. It reports whether that is so already.
func (c *Conn) mute() bool {
	switch {
	case c.salvaging:
		c.giveUp()
		return true
	case !c.parked.Load():
		c.o.Counters.Parks.Add(1)
		if c.rec != nil {
			c.rec.compact()
		}
		c.drv.(*polled).listen(false)
		c.parked.Store(true)
	}
	if 2*int(c.unconsumed.Load()) >= c.o.Park {
		return false
	}
	c.unmute()
	return true
}

func (c *Conn) unmute() {
	if c.parked.Load() {
		c.parked.Store(false)
		c.drv.(*polled).listen(true)
	}
}
