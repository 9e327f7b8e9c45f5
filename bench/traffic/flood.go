package traffic

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/sandwich-mesh/sandwich/bench/account"
)

const (
	// FloodTime is how long an attack goes on when nobody ends it.
	FloodTime = time.Second
	// deafUnits is how many units an attack that reads nothing writes before it looks:
	// their answers are more than the kernel holds for both ends.
	deafUnits = 600_000
	// floodBatch is how much an attack writes at once: a TLS record.
	floodBatch = 16 << 10
)

// A FloodPlan says whom to attack. It crosses process borders as JSON.
type FloodPlan struct {
	Addr  string // of the proxy
	To    string // what CONNECT is bound for
	Certs Certs
	PID   int // the process whose CPU time is taken along
}

// A Flood is one attack, made on one connection after the other.
type Flood struct {
	Attack string
	Inner  bool          // on the HTTP/2 connection inside a tunnel
	For    time.Duration // how long
	Pause  time.Duration // between connections
	Pace   time.Duration // between writes, of a record each
	Many   int           // connections at once, that stay; 0 is one behind the other
	Apart  bool          // CPU time without that of the handshakes is wanted
	// From is where connections come from, an address of loopback; the system's
	// choice if it is zero. With Scatter each comes from the next one: who floods is
	// held off by address, and this is an attacker that has many.
	From    netip.Addr
	Scatter bool
}

// A FloodResult is what became of a Flood.
type FloodResult struct {
	Conns, Ended  int
	Units         int64         // that were written, on all connections
	Median, Worst time.Duration // from an attack's first frame, or first look, to its end
	CPU, Own      time.Duration // of the proxy and of this process, handshakes included
	CPUApart      time.Duration // the same without them
	OwnApart      time.Duration
	Why           string // the server's last words, on the last connection
}

// A flooding is a Flood in progress.
type flooding struct {
	*FloodPlan
	Flood
	attack Attack
	config *tls.Config
	until  time.Time
	took   []time.Duration
	res    FloodResult
}

// Run makes an attack.
func (p *FloodPlan) Run(ctx context.Context, o Flood) (*FloodResult, error) {
	at := slices.IndexFunc(Attacks(), func(a Attack) bool { return a.Name == o.Attack })
	if at < 0 {
		return nil, fmt.Errorf("no attack is called %q", o.Attack)
	}
	_, config, err := p.Certs.TLS()
	if err != nil {
		return nil, err
	}
	f := &flooding{FloodPlan: p, Flood: o, attack: Attacks()[at], config: config, until: time.Now().Add(o.For)}
	if o.Many > 0 {
		return f.many(ctx)
	}
	from, err := p.cpu()
	if err != nil {
		return nil, err
	}
	for f.res.Conns == 0 || time.Now().Before(f.until) {
		if err := f.one(ctx); err != nil {
			return nil, fmt.Errorf("connection %d: %w", f.res.Conns, err)
		}
		if err := sleep(ctx, o.Pause); err != nil {
			return nil, err
		}
	}
	if err := p.since(from, &f.res.CPU, &f.res.Own); err != nil {
		return nil, err
	}
	if len(f.took) > 0 {
		slices.Sort(f.took)
		f.res.Median, f.res.Worst = f.took[len(f.took)/2], f.took[len(f.took)-1]
	}
	return &f.res, nil
}

// many attacks on many connections, and keeps them until the time is up. Those
// that are refused or ended are counted.
func (f *flooding) many(ctx context.Context) (*FloodResult, error) {
	var all []*victim
	defer func() {
		for _, v := range all {
			v.nc.Close()
		}
	}()
	for range f.Many {
		f.res.Conns++
		v, err := f.open(ctx, f.config, f.way())
		if err != nil {
			f.res.Ended++
			f.res.Why = err.Error()
			continue
		}
		all = append(all, v)
		f.res.Units += int64(v.flood(&f.attack, time.Now(), f.Pace))
		if err := sleep(ctx, f.Pause); err != nil {
			return nil, err
		}
	}
	if err := sleep(ctx, time.Until(f.until)); err != nil {
		return nil, err
	}
	for _, v := range all {
		if v.over() {
			f.res.Ended++
			f.res.Why = v.why
		}
	}
	return &f.res, nil
}

// A way is how a connection is made.
type way struct {
	inner, deaf bool
	from        netip.Addr
}

// way is that of the next connection.
func (f *flooding) way() way {
	w := way{f.Inner, f.attack.deaf, f.From}
	if f.Scatter {
		f.From = f.From.Next()
	}
	return w
}

// one attacks on one connection.
func (f *flooding) one(ctx context.Context) error {
	f.res.Conns++
	v, err := f.open(ctx, f.config, f.way())
	if err != nil {
		return err
	}
	defer v.nc.Close()
	var from cpuTime
	if f.Apart {
		if from, err = f.cpu(); err != nil {
			return err
		}
	}
	began := time.Now()
	f.res.Units += int64(v.flood(&f.attack, began, f.Pace))
	if f.attack.deaf {
		began = v.looked
	}
	if f.attack.Limit == 0 {
		select {
		case <-v.ended:
		case <-time.After(min(time.Until(f.until), FloodTime)):
		}
	}
	if v.over() {
		f.res.Ended++
		f.took = append(f.took, v.at.Sub(began))
		f.res.Why = v.why
	}
	if f.Apart {
		return f.since(from, &f.res.CPUApart, &f.res.OwnApart)
	}
	return nil
}

func (p *FloodPlan) cpu() (t cpuTime, err error) {
	if t.own, err = (account.Meter{PID: os.Getpid()}).Read(); err != nil {
		return t, err
	}
	t.watched, err = account.Meter{PID: p.PID}.Read()
	return t, err
}

// since adds what was used since from.
func (p *FloodPlan) since(from cpuTime, watched, own *time.Duration) error {
	to, err := p.cpu()
	if err != nil {
		return err
	}
	a, err := account.Between(from.watched, to.watched)
	if err != nil {
		return err
	}
	b, err := account.Between(from.own, to.own)
	*watched += a
	*own += b
	return err
}

// A victim is a connection under attack.
type victim struct {
	flooder
	nc     net.Conn
	r      *bufio.Reader
	hears  chan struct{} // closed when what is sent back may be read
	looked time.Time     // when that was

	mu       sync.Mutex
	room     sync.Cond
	may      int64 // what the server's windows let us send in the tunnel
	mayTo    int64 // …on its stream
	window   int64 // that a stream of ours begins with
	withheld int   // credit for what came in it

	ended chan struct{} // closed at the server's GOAWAY, or at the connection's end
	once  sync.Once
	at    time.Time // when that was
	why   string

	// Owned by listen.
	inner   []byte // of a frame inside the tunnel: what has come of it
	greeted bool
	ready   chan struct{}
}

// tunnelID is the stream that carries the inner connection.
const tunnelID = 1

// open makes a connection that has been greeted.
func (p *FloodPlan) open(ctx context.Context, config *tls.Config, o way) (*victim, error) {
	d := tls.Dialer{Config: config, NetDialer: &net.Dialer{}}
	if o.from.IsValid() {
		d.NetDialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(o.from, 0))
	}
	if o.deaf && !o.inner { // what the kernel takes for us is not with the server
		d.NetDialer.Control = smallBuffer
	}
	nc, err := d.DialContext(ctx, "tcp", p.Addr)
	if err != nil {
		return nil, fmt.Errorf("connect to the proxy: %w", err)
	}
	v := &victim{nc: nc, r: bufio.NewReaderSize(nc, 128<<10), hears: make(chan struct{}), ended: make(chan struct{}), ready: make(chan struct{}), may: 65535, mayTo: 65535, window: 65535}
	v.room.L = &v.mu
	v.id = ^uint32(0) // the first stream is 1
	v.head = connectHead(p.To)
	v.flooder.inner = false
	v.out = append(v.out, preface...)
	v.frame(frameSettings, 0, 0, nil)
	v.frame(frameSettings, flagEnd, 0, nil)
	if o.inner {
		v.request()
	}
	if err := v.write(); err != nil {
		return nil, err
	}
	go v.listen(o.inner, o.deaf)
	if o.inner {
		v.flooder = flooder{inner: true, head: innerHead("POST", 1<<10, 1<<30), id: ^uint32(0)}
		v.out = append(v.out, preface...)
		v.frame(frameSettings, 0, 0, nil)
		v.frame(frameSettings, flagEnd, 0, nil)
		if err := v.write(); err != nil {
			return nil, err
		}
	}
	select {
	case <-v.ready:
		return v, nil
	case <-v.ended:
		return nil, fmt.Errorf("ended before the attack: %s", v.why)
	case <-time.After(handshakeTime):
		return nil, errors.New("proxy does not greet")
	}
}

// smallBuffer has the kernel take little.
func smallBuffer(_, _ string, c syscall.RawConn) (err error) {
	if e := c.Control(func(fd uintptr) {
		err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4<<10)
	}); e != nil {
		return e
	}
	return err
}

// flood writes units until the server ends the connection, and returns how many.
func (v *victim) flood(a *Attack, began time.Time, pace time.Duration) (units int) {
	if a.begin != nil {
		a.begin(&v.flooder)
	}
	most, until := a.most, began.Add(FloodTime)
	if a.deaf {
		most = deafUnits
	}
	for over := false; !over && (most == 0 || units < most) && time.Now().Before(until); {
		for len(v.out) < floodBatch && (most == 0 || units < most) {
			a.unit(&v.flooder, units)
			units++
		}
		over = v.over() || v.write() != nil
		if pace > 0 {
			time.Sleep(pace)
		}
	}
	v.looked = time.Now()
	close(v.hears)
	v.mu.Lock()
	n := v.withheld
	v.mu.Unlock()
	v.grant(n)
	if a.Limit > 0 { // a write may fail before the GOAWAY is read
		select {
		case <-v.ended:
		case <-time.After(time.Second):
		}
	}
	return units
}

// write sends what was appended; inside a tunnel as DATA, when there is room.
func (v *victim) write() error {
	b := v.out
	v.out = v.out[:0]
	if !v.flooder.inner {
		v.nc.SetWriteDeadline(time.Now().Add(FloodTime))
		_, err := v.nc.Write(b)
		return err
	}
	for len(b) > 0 {
		n, err := v.take(len(b))
		if err != nil {
			return err
		}
		f := make([]byte, frameHead, frameHead+n)
		f[0], f[1], f[2], f[3] = byte(n>>16), byte(n>>8), byte(n), frameData
		binary.BigEndian.PutUint32(f[5:], tunnelID)
		v.nc.SetWriteDeadline(time.Now().Add(FloodTime))
		if _, err := v.nc.Write(append(f, b[:n]...)); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// take waits for window, and takes at most n bytes and a frame's.
func (v *victim) take(n int) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for v.may <= 0 || v.mayTo <= 0 {
		if v.over() {
			return 0, io.ErrClosedPipe
		}
		v.room.Wait()
	}
	n = int(min(int64(n), v.may, v.mayTo, maxFrame))
	v.may -= int64(n)
	v.mayTo -= int64(n)
	return n, nil
}

func (v *victim) over() bool {
	select {
	case <-v.ended:
		return true
	default:
		return false
	}
}

func (v *victim) end(why string) {
	v.once.Do(func() {
		v.at, v.why = time.Now(), why
		close(v.ended)
	})
	v.mu.Lock()
	v.room.Broadcast()
	v.mu.Unlock()
}

// listen reads what the server says until there is no more.
func (v *victim) listen(inner, deaf bool) {
	for {
		head, err := v.r.Peek(frameHead)
		if err != nil {
			v.end(err.Error())
			return
		}
		f := frame{typ: head[3], flags: head[4], id: binary.BigEndian.Uint32(head[5:]) &^ (1 << 31)}
		n := int(head[0])<<16 | int(head[1])<<8 | int(head[2])
		p := make([]byte, frameHead+n)
		if _, err := io.ReadFull(v.r, p); err != nil {
			v.end(err.Error())
			return
		}
		f.p = p[frameHead:]
		v.outer(&f, inner, deaf)
		if !inner && f.typ == frameSettings {
			v.greet(f.flags)
			if deaf {
				<-v.hears
			}
		}
	}
}

// outer takes a frame of the mesh connection.
func (v *victim) outer(f *frame, inner, deaf bool) {
	switch {
	case f.typ == frameGoAway:
		v.end(fmt.Sprintf("GOAWAY: %s", f.p[min(8, len(f.p)):]))
	case f.typ == frameSettings:
		v.settings(f.p)
	case f.typ == frameWindowUpdate && inner:
		n := int64(binary.BigEndian.Uint32(f.p))
		v.mu.Lock()
		if f.id == 0 {
			v.may += n
		} else {
			v.mayTo += n
		}
		v.room.Broadcast()
		v.mu.Unlock()
	case inner && f.id == tunnelID && (f.typ == frameReset || f.end() && f.typ != frameData):
		v.end("the tunnel ended")
	case inner && f.id == tunnelID && f.typ == frameData:
		v.within(f.p)
		if deaf && !v.heard() {
			v.withhold(len(f.p))
		} else {
			v.grant(len(f.p))
		}
		if f.end() {
			v.end("the tunnel ended")
		}
	}
}

// settings keeps the window of the tunnel's stream.
func (v *victim) settings(p []byte) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for ; len(p) >= 6; p = p[6:] {
		if binary.BigEndian.Uint16(p) == settingWindow {
			w := int64(binary.BigEndian.Uint32(p[2:]))
			v.mayTo += w - v.window
			v.window = w
		}
	}
	v.room.Broadcast()
}

// greet notes that the server's SETTINGS have come, those under attack.
func (v *victim) greet(flags byte) {
	if flags&flagEnd == 0 && !v.greeted {
		v.greeted = true
		close(v.ready)
	}
}

// withhold keeps credit back. The last of it may be kept for good.
func (v *victim) withhold(n int) {
	v.mu.Lock()
	v.withheld += n
	v.mu.Unlock()
}

func (v *victim) heard() bool {
	select {
	case <-v.hears:
		return true
	default:
		return false
	}
}

// grant gives credit back, for the tunnel and its connection. Writes of a TLS
// connection may come from two goroutines.
func (v *victim) grant(n int) {
	if n == 0 {
		return
	}
	var g flooder
	g.uint32(frameWindowUpdate, 0, uint32(n))
	g.uint32(frameWindowUpdate, tunnelID, uint32(n))
	v.nc.Write(g.out)
}

// within reads the frames inside the tunnel.
func (v *victim) within(p []byte) {
	v.inner = append(v.inner, p...)
	for len(v.inner) >= frameHead {
		n := frameHead + (int(v.inner[0])<<16 | int(v.inner[1])<<8 | int(v.inner[2]))
		if len(v.inner) < n {
			return
		}
		switch v.inner[3] {
		case frameSettings:
			v.greet(v.inner[4])
		case frameGoAway:
			v.end(fmt.Sprintf("GOAWAY: %s", v.inner[min(frameHead+8, n):n]))
		}
		v.inner = v.inner[n:]
	}
}
