package filtertest

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"github.com/sandwich-mesh/sandwich/proxy/message"
)

var (
	_ filters.RequestFilter      = (*echo)(nil)
	_ filters.RequestBodyFilter  = (*echo)(nil)
	_ filters.ResponseFilter     = (*echo)(nil)
	_ filters.ResponseBodyFilter = (*echo)(nil)
)

var errOver = errors.New("the test is over")

// Echo is "test-echo": a filter of both body phases.
func Echo() filters.Kind { return filters.Kind{Name: "test-echo", New: newEcho} }

// EchoSettings say what Echo does to the bodies of each side:
//
//	""       lets them pass
//	"upper"  edits them in place; the length stays
//	"double" sends every run twice, from memory of its own
//	"drop"   sends an empty body
//	"hold"   holds the body back until its end
//	"reply"  answers the request with its own body (requests only)
type EchoSettings struct {
	Request  string `json:"request"`
	Response string `json:"response"`
	Limit    int    `json:"limit"` // of what "hold" and "reply" hold, 64 KiB if left out; beyond it 413 or 500
}

type echo struct {
	EchoSettings
	state filters.Slot[echoState]
}

// echoState is one stream's; the two directions never share a buffer.
type echoState struct{ request, response bytes.Buffer }

func newEcho(b *filters.Builder, raw filters.Spec) (filters.Filter, error) {
	f := &echo{state: filters.NewSlot[echoState](b)}
	if err := raw.Decode(&f.EchoSettings); err != nil {
		return nil, err
	}
	if f.Limit == 0 {
		f.Limit = 64 << 10
	}
	for _, mode := range []string{f.EchoSettings.Request, f.EchoSettings.Response} {
		switch mode {
		case "", "upper", "double", "drop", "hold", "reply":
		default:
			return nil, fmt.Errorf("no mode %q", mode)
		}
	}
	return f, nil
}

func (f *echo) Request(s *filters.Stream) *filters.Reply {
	f.state.Set(s, new(echoState))
	changeLength(f.EchoSettings.Request, &s.Request.Length)
	return nil
}

func (f *echo) Response(s *filters.Stream) *filters.Reply {
	changeLength(f.EchoSettings.Response, &s.Response.Length)
	return nil
}

// changeLength says that the body will have another size, if there is a body.
func changeLength(mode string, length *int64) {
	if (mode == "double" || mode == "drop") && *length != message.NoBody {
		*length = message.UnknownLength
	}
}

func (f *echo) RequestBody(s *filters.Stream, c *message.Chunk) *filters.Reply {
	return f.body(f.EchoSettings.Request, &f.state.Get(s).request, c, fault.BodyTooLarge)
}

func (f *echo) ResponseBody(s *filters.Stream, c *message.Chunk) *filters.Reply {
	return f.body(f.EchoSettings.Response, &f.state.Get(s).response, c, fault.ResponseTooLarge)
}

func (f *echo) body(mode string, held *bytes.Buffer, c *message.Chunk, tooLarge fault.Kind) *filters.Reply {
	switch mode {
	case "upper":
		for i, b := range c.Data {
			if 'a' <= b && b <= 'z' {
				c.Data[i] = b &^ 0x20
			}
		}
	case "double":
		held.Reset()
		held.Write(c.Data)
		held.Write(c.Data)
		c.Data = held.Bytes()
	case "drop":
		c.Data = nil
	case "hold", "reply":
		if held.Len()+len(c.Data) > f.Limit {
			return filters.Fail(fault.Wrap(tooLarge, fault.Local, nil))
		}
		held.Write(c.Data)
		c.Data = nil
		if c.End && mode == "reply" {
			return &filters.Reply{Status: 200, Body: bytes.Clone(held.Bytes()), Reason: "echo"}
		}
		if c.End {
			c.Data = held.Bytes()
		}
	}
	return nil
}
