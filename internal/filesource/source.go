package filesource

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/sandwich-mesh/sandwich/proxy/config"
)

const (
	// quiet is how long nothing must have happened before files are read, and
	// how long what was read must stay the same before it is believed.
	quiet = 100 * time.Millisecond
	// swift is the same for a file, or a volume's link, that was replaced by
	// another in one step: it is whole as soon as it is there.
	swift = 10 * time.Millisecond
	// patience bounds the wait for quiet where something always happens.
	patience = time.Second
	// poll is how often files are read unasked: notifications do not cross
	// network file systems, nor links that lead out of the directory.
	poll = 5 * time.Second
)

// A Source is the document at one path: a file, or a directory as a whole.
type Source struct {
	path   string
	apply  func(*config.Config) []config.Problem
	report func([]config.Problem)

	given  sum // what was handed on last
	seen   sum // what was read last, believed or not
	failed string
	poll   time.Duration
}

type sum [sha256.Size]byte

// New returns a source that gives each new document to apply, and then to
// report all that is known to be wrong with it: from decoding and from apply.
// The list is empty for a document without problems.
func New(path string, apply func(*config.Config) []config.Problem, report func([]config.Problem)) *Source {
	return &Source{path: path, apply: apply, report: report, poll: poll}
}

// Once reads the document and hands it on, now. It reports whether there was
// one to apply.
func (s *Source) Once() bool {
	for tries := 10; ; tries-- { // until two readings agree: files may be changing, or gone for a moment
		files, now, err := s.read()
		switch {
		case err == nil && (now == s.seen || tries == 0):
			s.seen = now
			return s.give(files)
		case err == nil:
			s.seen = now
		case tries == 0:
			s.fail(err)
			return false
		}
	}
}

// Run hands on every new document until ctx is done. The first one it reads
// counts as new unless Once has handed it on.
func (s *Source) Run(ctx context.Context) {
	w := newWatch(s.path)
	defer w.close()
	tick := time.NewTicker(s.poll)
	defer tick.Stop()
	settle := time.NewTimer(0)
	defer settle.Stop()
	var since time.Time // when the restlessness began; zero when all is quiet
	pace := quiet
	for {
		select {
		case <-ctx.Done():
			return
		case e, ok := <-w.events():
			if !ok || !w.concerns(e) {
				continue
			}
			if since.IsZero() {
				since, pace = time.Now(), swift
			}
			if !w.swapped(e) {
				pace = quiet
			}
			settle.Reset(min(pace, max(0, time.Until(since.Add(patience)))))
		case <-w.errors():
			pace = quiet
			settle.Reset(pace) // events were lost: look
		case <-tick.C:
			pace = quiet
			settle.Reset(0)
		case <-settle.C:
			since = time.Time{}
			w.arm() // before reading, so that nothing falls between
			if s.look() {
				settle.Reset(pace)
			}
		}
	}
}

// look reads the files, and hands on what two readings in a row agree on. It
// reports whether another reading is due.
func (s *Source) look() (again bool) {
	files, now, err := s.read()
	if err != nil {
		// A set that is being swapped may have gaps: only a lasting error counts.
		again = s.seen != sum{}
		s.seen = sum{}
		if !again {
			s.fail(err)
		}
		return again
	}
	if now != s.seen {
		s.seen = now
		return now != s.given || s.failed != ""
	}
	s.give(files)
	return false
}

func (s *Source) read() ([]config.File, sum, error) {
	files, err := config.ReadFiles(s.path)
	h := sha256.New()
	var n [8]byte
	part := func(p []byte) {
		binary.BigEndian.PutUint64(n[:], uint64(len(p)))
		h.Write(n[:])
		h.Write(p)
	}
	for i := range files {
		part([]byte(files[i].Name))
		part(files[i].Data)
	}
	var out sum
	h.Sum(out[:0])
	return files, out, err
}

// give decodes and applies what was read, unless it was handed on before.
func (s *Source) give(files []config.File) bool {
	if s.seen == s.given && s.failed == "" {
		return true
	}
	s.given, s.failed = s.seen, ""
	c, problems := config.DecodeSet(s.path, files)
	if c != nil {
		problems = append(problems, s.apply(c)...)
	}
	s.report(problems)
	return c != nil
}

// fail reports that nothing can be read, once until that changes.
func (s *Source) fail(err error) {
	if s.failed == err.Error() {
		return
	}
	s.failed = err.Error()
	s.report([]config.Problem{config.Unreadable(s.path, err)})
}

// watch is notifications about a path. Without them, which is when the
// system's limit is reached, polling does.
type watch struct {
	w    *fsnotify.Watcher
	path string
}

func newWatch(path string) *watch {
	out := &watch{path: filepath.Clean(path)}
	if w, err := fsnotify.NewWatcher(); err == nil {
		out.w = w
	}
	return out
}

// arm watches the directory and, as the path may be a file that is replaced by
// renaming another one over it, the directory that holds it. Doing it again
// finds directories that have been made anew.
func (w *watch) arm() {
	if w.w != nil {
		_ = w.w.Add(filepath.Dir(w.path)) // what cannot be watched is polled
		_ = w.w.Add(w.path)
	}
}

// concerns reports whether an event may have changed the document: it is in the
// directory, is the file, or swaps the link through which a volume shows it.
func (w *watch) concerns(e fsnotify.Event) bool {
	if e.Op == fsnotify.Chmod {
		return false
	}
	name := filepath.Clean(e.Name)
	base := filepath.Base(name)
	return name == w.path || base == "..data" || filepath.Dir(name) == w.path && base[0] != '.' // those are not read
}

// swapped reports whether an event is part of one file's taking the place of
// another. A file that is written in place is announced too, and then written to:
// who does that must be given time, or half a document would be believed.
func (w *watch) swapped(e fsnotify.Event) bool {
	name := filepath.Clean(e.Name)
	return !e.Has(fsnotify.Write) && (name == w.path || filepath.Base(name) == "..data")
}

func (w *watch) events() <-chan fsnotify.Event {
	if w.w == nil {
		return nil
	}
	return w.w.Events
}

func (w *watch) errors() <-chan error {
	if w.w == nil {
		return nil
	}
	return w.w.Errors
}

func (w *watch) close() {
	if w.w != nil {
		_ = w.w.Close() // nothing is left to lose
	}
}
