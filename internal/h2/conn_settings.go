package h2

import (
	"encoding/binary"
	"math"

	"github.com/sandwich-mesh/sandwich/internal/turn"
)

// Settings (RFC 9113, section 6.5.2; RFC 8441, section 3).
const (
	settingTableSize       = 0x1
	settingEnablePush      = 0x2
	settingMaxStreams      = 0x3
	settingWindow          = 0x4
	settingMaxFrame        = 0x5
	settingMaxHeaderList   = 0x6
	settingConnectProtocol = 0x8

	settingLen = 6
)

// peerSettings is what the peer has said, in the form it is used in.
type peerSettings struct {
	window          int64  // of new streams
	frame           int    // the longest frame it takes
	send            int    // the longest DATA frame that we send
	streams         uint32 // how many we may open
	connectProtocol bool
}

// appendSettings announces what differs from the protocol's defaults. c.mu is
// held.
func (c *Conn) appendSettings() {
	var s []byte
	add := func(id uint16, v uint32) {
		s = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(s, id), v)
	}
	if c.o.Client {
		add(settingEnablePush, 0)
	} else {
		add(settingMaxStreams, c.o.MaxStreams)
		if c.o.ConnectProtocol {
			add(settingConnectProtocol, 1)
		}
	}
	if c.o.FirstWindow != defaultWindow {
		add(settingWindow, uint32(c.o.FirstWindow))
	}
	if c.o.MaxFrameSize != minFrameSize {
		add(settingMaxFrame, c.o.MaxFrameSize)
	}
	add(settingMaxHeaderList, c.o.MaxHeaderList)
	c.appendFrame(frameSettings, 0, 0, len(s))
	c.out = append(grow(c.out, len(s)), s...)
}

func (c *Conn) handleSettings(t *turn.Turn, f frame, p []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stats.SettingsIn++
	if f.has(flagAck) {
		return c.settingsAcked(t)
	}
	if err := c.chargeAnswer(LimitSettings); err != nil {
		return err
	}
	if !c.gotSettings {
		c.gotSettings = true
		c.peer.streams = math.MaxUint32 // unless it says otherwise now
	}
	window := uint32(c.peer.window)
	for ; len(p) >= settingLen; p = p[settingLen:] {
		id, v := binary.BigEndian.Uint16(p), binary.BigEndian.Uint32(p[2:])
		if err := c.setting(id, v); err != nil {
			return err
		}
		if id == settingWindow {
			window = v
		}
	}
	// Once for the frame: a frame may say it thousands of times over.
	if err := c.peerWindow(t, window); err != nil {
		return err
	}
	c.appendFrame(frameSettings, flagAck, 0, 0)
	c.mark(t)
	return nil
}

// settingsAcked: the peer has seen our settings, so a window smaller than the
// protocol's default holds from now on. c.mu is held.
func (c *Conn) settingsAcked(t *turn.Turn) error {
	if c.acked {
		return &ConnError{Code: CodeProtocol, Reason: "SETTINGS acknowledged twice"}
	}
	c.acked = true
	if d := c.o.FirstWindow - c.recvInit; d < 0 {
		c.recvInit = c.o.FirstWindow
		for s := range c.streams.all() {
			s.recvWin += d
			s.recvMost += d
			c.creditStream(t, s, 0) // half of the smaller window may be owed already
		}
	}
	return nil
}

// setting takes one setting, all but the effect of settingWindow.
func (c *Conn) setting(id uint16, v uint32) error {
	bad := false
	switch id {
	case settingTableSize:
		c.enc.setLimit(v)
	case settingEnablePush:
		bad = v > 1 || v == 1 && c.o.Client
	case settingMaxStreams:
		c.peer.streams = v
	case settingWindow:
		if v > maxWindow {
			return &ConnError{Code: CodeFlowControl, Reason: "initial window beyond 2^31-1"}
		}
	case settingMaxFrame:
		if bad = v < minFrameSize || v > maxFrameSize; !bad {
			c.peer.frame = int(v)
			c.peer.send = min(int(v), int(c.o.MaxSendFrame))
		}
	case settingConnectProtocol:
		bad = v > 1 || v == 0 && c.peer.connectProtocol
		c.peer.connectProtocol = v == 1
	}
	if bad {
		return &ConnError{Code: CodeProtocol, Reason: "setting with a forbidden value"}
	}
	return nil
}

// peerWindow changes the window of all streams, which may become negative
// (section 6.9.2).
func (c *Conn) peerWindow(t *turn.Turn, v uint32) error {
	d := int64(v) - c.peer.window
	if d == 0 {
		return nil
	}
	c.peer.window = int64(v)
	for s := range c.streams.all() {
		if s.sendWin += d; s.sendWin > maxWindow {
			return &ConnError{Code: CodeFlowControl, Reason: "stream's window beyond 2^31-1"}
		}
		if s.sendWin <= 0 {
			c.ring.remove(s)
		} else {
			c.ready(t, s)
		}
	}
	return nil
}
