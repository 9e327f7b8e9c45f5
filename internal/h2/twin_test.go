package h2

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// twin is the slow twin of a Conn's receiving side: http2.Framer reads the
// frames, and the rules are written down the plain way. It keeps every stream
// there ever was, and says what each should have heard.
type twin struct {
	client   bool
	fr       *http2.Framer
	dec      *hpack.Decoder
	streams  map[uint32]*twinStream
	max      uint32 // the highest stream opened
	settled  bool
	acked    bool
	connect  bool // the peer offered extended CONNECT
	goAway   int64
	block    []byte
	blockOf  *http2.HeadersFrame
	blockEnd bool
	self     bool
	window   int64 // what we may send, on the connection
	initial  int64 // and on new streams
	fatal    string
	unsure   bool // hpack.Decoder may be wrong
}

type twinStream struct {
	method  string
	log     strings.Builder // heads
	data    []byte
	end     bool
	got     bool // final head
	tunnel  bool
	length  int64
	gone    string // "", "reset" by us, "peer", "ended"
	window  int64  // what we may send
	written bool   // it is one that our side has ended
}

func newTwin(client bool, in []byte) *twin {
	w := &twin{client: client, streams: map[uint32]*twinStream{}, goAway: -1, window: defaultWindow, initial: defaultWindow}
	w.fr = http2.NewFramer(nil, bytes.NewReader(in))
	w.fr.SetMaxReadFrameSize(minFrameSize)
	w.dec = hpack.NewDecoder(tableSize, nil)
	return w
}

func (w *twin) run() {
	for w.fatal == "" {
		fh, err := w.fr.ReadFrameHeader()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return
		}
		if err == nil && !w.settled && (fh.Type != http2.FrameSettings || fh.Flags&flagAck != 0) {
			err = errors.New("no SETTINGS")
		}
		if err != nil {
			w.fatal = err.Error()
			return
		}
		w.settled = true
		if fh.Type > http2.FrameContinuation {
			buf := make([]byte, 1<<16)
			io.ReadFull(w.reader(), buf[:fh.Length])
			continue
		}
		w.frame(fh)
	}
}

// reader is the Framer's: it has read the header only.
func (w *twin) reader() io.Reader { return frameReader{w.fr} }

type frameReader struct{ fr *http2.Framer }

// Read lets the Framer read the payload as one of an unknown type.
func (r frameReader) Read(p []byte) (int, error) {
	_, err := r.fr.ReadFrameForHeader(http2.FrameHeader{Type: 0xff, Length: uint32(len(p))})
	return len(p), err
}

func (w *twin) frame(fh http2.FrameHeader) {
	f, err := w.fr.ReadFrameForHeader(fh)
	s := w.streams[fh.StreamID]
	live := s != nil && s.gone == ""
	if err != nil {
		se, isStream := err.(http2.StreamError)
		switch {
		case fh.Type == http2.FramePriority && fh.StreamID != 0 && live: // ours: of the stream
			s.reset()
		case isStream && fh.Type == http2.FrameWindowUpdate && live:
			s.reset()
		case isStream && fh.Type == http2.FrameWindowUpdate && !w.idle(se.StreamID):
		default:
			w.fatal = err.Error()
		}
		return
	}
	switch f := f.(type) {
	case *http2.DataFrame:
		w.data(f, s)
	case *http2.HeadersFrame:
		w.block, w.blockOf, w.blockEnd = bytes.Clone(f.HeaderBlockFragment()), f, f.StreamEnded()
		w.self = f.HasPriority() && f.Priority.StreamDep == f.StreamID
		if f.HeadersEnded() {
			w.head(f.StreamID)
		}
	case *http2.ContinuationFrame:
		w.block = append(w.block, f.HeaderBlockFragment()...)
		if f.HeadersEnded() {
			w.head(f.StreamID)
		}
	case *http2.PriorityFrame:
		if f.StreamDep == f.StreamID {
			w.streamError(f.StreamID, "depends on itself")
		}
	case *http2.RSTStreamFrame:
		if live {
			s.gone = "peer"
		} else if w.idle(f.StreamID) {
			w.fatal = "RST_STREAM on idle"
		}
	case *http2.SettingsFrame:
		w.settings(f)
	case *http2.PingFrame:
	case *http2.GoAwayFrame:
		if w.goAway >= 0 && int64(f.LastStreamID) > w.goAway {
			w.fatal = "GOAWAY rises"
			return
		}
		w.goAway = int64(f.LastStreamID)
		for id, s := range w.streams {
			if w.client && s.gone == "" && id > f.LastStreamID {
				s.gone = "peer"
			}
		}
	case *http2.WindowUpdateFrame:
		w.update(f, s, live)
	default:
		w.fatal = fmt.Sprintf("%T", f)
	}
}

// reset ends a stream from our side. What the peer has ended before it cannot
// have under way.
func (s *twinStream) reset() {
	s.gone = "reset"
	if s.end {
		s.gone = "ended"
	}
}

func (w *twin) idle(id uint32) bool { return id%2 == 0 || id > w.max }

// streamError resets a stream that is there; there is none to reset otherwise.
func (w *twin) streamError(id uint32, why string) {
	if s := w.streams[id]; s != nil && s.gone == "" {
		s.reset()
		return
	}
	w.fatal = why
}

func (w *twin) update(f *http2.WindowUpdateFrame, s *twinStream, live bool) {
	switch {
	case f.StreamID == 0:
		if w.window += int64(f.Increment); w.window > maxWindow {
			w.fatal = "connection's window overflows"
		}
	case live:
		if s.window += int64(f.Increment); s.window > maxWindow {
			s.reset()
		}
	case w.idle(f.StreamID):
		w.fatal = "WINDOW_UPDATE on idle"
	}
}

func (w *twin) settings(f *http2.SettingsFrame) {
	if f.IsAck() {
		if w.acked {
			w.fatal = "SETTINGS acknowledged twice"
		}
		w.acked = true
		return
	}
	initial := w.initial
	for i := range f.NumSettings() {
		s := f.Setting(i)
		if s.ID == http2.SettingInitialWindowSize {
			initial = int64(s.Val) // the last in the frame counts
		}
		if s.Valid() != nil || s.ID == http2.SettingEnablePush && w.client && s.Val == 1 ||
			s.ID == http2.SettingEnableConnectProtocol && s.Val == 0 && w.connect {
			w.fatal = s.String()
			return
		}
		w.connect = w.connect || s.ID == http2.SettingEnableConnectProtocol && s.Val == 1
	}
	for _, s := range w.streams {
		if s.window += initial - w.initial; s.gone == "" && s.window > maxWindow {
			w.fatal = "stream's window overflows"
		}
	}
	w.initial = initial
}

func (w *twin) data(f *http2.DataFrame, s *twinStream) {
	n := int64(len(f.Data()))
	switch {
	case w.idle(f.StreamID):
		w.fatal = "DATA on idle"
	case s == nil: // passed over: reset, as if it had been there
		w.streams[f.StreamID] = &twinStream{gone: "reset"}
	case s.gone == "reset":
	case s.gone != "":
		s.gone = "reset" // STREAM_CLOSED
	case s.end, !s.got, s.length >= 0 && (n > s.length || f.StreamEnded() && n != s.length):
		s.reset()
	default:
		s.data = append(s.data, f.Data()...)
		if s.length >= 0 {
			s.length -= n
		}
		w.ended(s, f.StreamEnded())
	}
}

func (w *twin) ended(s *twinStream, end bool) {
	s.end = s.end || end
	if s.end && s.written {
		s.gone = "ended"
	}
}

func (w *twin) head(id uint32) {
	w.unsure = w.unsure || lateUpdate(w.block)
	fields, err := w.dec.DecodeFull(w.block)
	if err != nil {
		w.fatal = err.Error()
		return
	}
	s := w.streams[id]
	switch {
	case s == nil && (w.client || id%2 == 0 || id < w.max):
		w.fatal = "HEADERS where there is no stream"
	case s == nil:
		w.max = id
		s = &twinStream{got: true, length: -1, window: w.initial}
		w.streams[id] = s
		if w.self || !s.request(fields, w.blockEnd) {
			s.gone = "reset"
			return
		}
		s.note(fields)
		w.ended(s, w.blockEnd)
	case s.gone == "reset":
	case s.gone != "":
		w.fatal = "HEADERS on a closed stream"
	case w.self || s.end || s.tunnel:
		s.reset()
	case s.got && (!trailersForm(fields) || !w.blockEnd || s.length > 0):
		s.reset()
	case !s.got && !s.response(fields, w.blockEnd):
		s.reset()
	default:
		s.note(fields)
		w.ended(s, w.blockEnd)
	}
}

func (s *twinStream) note(fields []hpack.HeaderField) {
	for _, f := range fields {
		fmt.Fprintf(&s.log, "%q=%q ", f.Name, f.Value)
	}
	s.log.WriteString("| ")
}

var (
	nameForm   = regexp.MustCompile("^[-!#$%&'*+.^_`|~0-9a-z]+$")
	methodForm = regexp.MustCompile("^[-!#$%&'*+.^_`|~0-9a-zA-Z]+$")
	valueForm  = regexp.MustCompile(`(?s)^([^\x00-\x20\x7f]([^\x00-\x08\x0a-\x1f\x7f]*[^\x00-\x20\x7f])?)?$`)
	pseudoForm = regexp.MustCompile(`^[^\x00-\x20\x7f]+$`)
	statusForm = regexp.MustCompile(`^[1-9][0-9][0-9]$`)
	digits     = regexp.MustCompile(`^[0-9]+$`)
)

// latin makes each byte a character, so that regular expressions see bytes.
func latin(s string) string {
	r := make([]rune, len(s))
	for i := range len(s) {
		r[i] = rune(s[i])
	}
	return string(r)
}

// fieldsForm judges what all heads have in common, and returns the
// pseudo-header fields and the content-length.
func fieldsForm(fields []hpack.HeaderField) (pseudo map[string]string, length int64, ok bool) {
	pseudo, length = map[string]string{}, -1
	regular := false
	for _, f := range fields {
		if !valueForm.MatchString(latin(f.Value)) {
			return nil, 0, false
		}
		if strings.HasPrefix(f.Name, ":") {
			_, twice := pseudo[f.Name]
			if regular || twice || !pseudoForm.MatchString(latin(f.Value)) ||
				f.Name == ":authority" && strings.Contains(f.Value, "@") {
				return nil, 0, false
			}
			pseudo[f.Name] = f.Value
			continue
		}
		regular = true
		if !nameForm.MatchString(latin(f.Name)) {
			return nil, 0, false
		}
		switch f.Name {
		case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
			return nil, 0, false
		case "te":
			if strings.ToLower(f.Value) != "trailers" {
				return nil, 0, false
			}
		case "content-length":
			n, err := strconv.ParseInt(f.Value, 10, 64)
			if length >= 0 || err != nil || !digits.MatchString(f.Value) {
				return nil, 0, false
			}
			length = n
		}
	}
	return pseudo, length, true
}

func (s *twinStream) request(fields []hpack.HeaderField, end bool) bool {
	p, length, ok := fieldsForm(fields)
	if !ok || !methodForm.MatchString(p[":method"]) {
		return false
	}
	s.method = p[":method"]
	if s.method == "CONNECT" {
		s.tunnel = true
		return p[":authority"] != "" && len(p) == 2
	}
	for name := range p {
		if !strings.Contains(":method :scheme :path :authority", name) {
			return false
		}
	}
	if p[":scheme"] == "" || p[":path"] == "" {
		return false
	}
	if strings.HasPrefix(p[":scheme"], "http") && len(strings.TrimSuffix(p[":scheme"], "s")) == 4 &&
		p[":path"][0] != '/' && (p[":path"] != "*" || s.method != "OPTIONS") {
		return false
	}
	s.length = length
	return !end || length <= 0
}

func (s *twinStream) response(fields []hpack.HeaderField, end bool) bool {
	p, length, ok := fieldsForm(fields)
	status := p[":status"]
	if !ok || len(p) != 1 || !statusForm.MatchString(status) || status == "101" {
		return false
	}
	if status < "200" {
		return !end
	}
	s.got = true
	if s.method == "CONNECT" && status < "300" {
		s.tunnel = true
		return true
	}
	if s.method != "HEAD" && status != "204" && status != "304" {
		s.length = length
	}
	return !end || s.length <= 0
}

func trailersForm(fields []hpack.HeaderField) bool {
	p, _, ok := fieldsForm(fields)
	return ok && len(p) == 0
}
