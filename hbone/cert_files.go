package hbone

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// How files are watched.
const (
	// maxFile bounds each file: a bundle of a thousand roots is about this big.
	maxFile = 4 << 20
	// settle is how long the files must be quiet before they are read: a set is
	// several files, and Kubernetes swaps a directory in several steps.
	settle = 100 * time.Millisecond
	// settleAtMost bounds that wait in a directory that is never quiet.
	settleAtMost = time.Second
	// pollEvery is for file systems that tell of no changes.
	pollEvery = time.Minute
)

// Files say where a set is kept. Chain, Key and at least one of Roots are
// required; ParsePEM says what each holds.
type Files struct {
	Chain string
	Key   string
	Roots []string
	CRL   string // "" for none
}

// A SourceError says what is wrong with a source of certificates.
type SourceError struct {
	Object string // a file, or the address of the Workload API
	Err    error
	Advice string
}

func (e *SourceError) Error() string {
	if e.Advice == "" {
		return fmt.Sprintf("%s: %v", e.Object, e.Err)
	}
	return fmt.Sprintf("%s: %v; %s", e.Object, e.Err, e.Advice)
}
func (e *SourceError) Unwrap() error { return e.Err }

// Load reads the set once.
func (f Files) Load() (*Credentials, error) {
	p, err := f.read()
	if err != nil {
		return nil, err
	}
	return f.parse(p, time.Now())
}

func (f Files) read() (p PEM, err error) {
	if p.Chain, err = readFile(f.Chain, "certificate"); err != nil {
		return PEM{}, err
	}
	if p.Key, err = readFile(f.Key, "key"); err != nil {
		return PEM{}, err
	}
	for _, r := range f.Roots {
		b, err := readFile(r, "roots")
		if err != nil {
			return PEM{}, err
		}
		p.Roots = append(append(p.Roots, b...), '\n')
	}
	if f.CRL != "" {
		if p.CRL, err = readFile(f.CRL, "revocation list"); err != nil {
			return PEM{}, err
		}
	}
	return p, nil
}

func readFile(name, what string) ([]byte, error) {
	if name == "" {
		return nil, &SourceError{what + " file", errors.New("no file is named"), "name one"}
	}
	file, err := os.Open(name)
	if err != nil {
		advice := "put the " + what + " there, or name another file"
		if errors.Is(err, fs.ErrPermission) {
			advice = "let this user read it"
		}
		return nil, &SourceError{what + " file " + name, bare(err), advice}
	}
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	switch {
	case err != nil:
		return nil, &SourceError{what + " file " + name, bare(err), "name a file that can be read"}
	case len(b) > maxFile:
		return nil, &SourceError{what + " file " + name, fmt.Errorf("longer than %d bytes", maxFile), "name a file of certificates"}
	}
	return b, nil
}

// bare takes the file's name out of an error that will be told with it.
func bare(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}

// parse checks the set, and names the file where something is wrong.
func (f Files) parse(p PEM, now time.Time) (*Credentials, error) {
	cr, err := parsePEM(p, now)
	if e, ok := errors.AsType[*partError](err); ok {
		name := map[setPart]string{partChain: f.Chain, partKey: f.Key, partRoots: strings.Join(f.Roots, ", "), partCRL: f.CRL}[e.part]
		return nil, &SourceError{string(e.part) + " file " + name, e.err, e.advice}
	}
	return cr, err
}

// Watch loads the set into c and keeps it current until ctx ends. A set that
// is not whole leaves the current one in place and is reported, once, to
// OnProblem; so is one that never becomes valid.
func (f Files) Watch(ctx context.Context, c *Certificates) {
	w := &fileWatch{Files: f, c: c, settle: settle, poll: pollEvery}
	w.run(ctx)
}

// A fileWatch is owned by the goroutine that called Watch.
type fileWatch struct {
	Files
	c      *Certificates
	settle time.Duration
	poll   time.Duration

	events *fsnotify.Watcher // nil if the system gives us none

	tried    [sha256.Size]byte // the contents that were last tried
	good     bool              // and whether they became current
	reported string            // the last problem told
	stale    bool              // whether a stale CRL has been told of
}

func (w *fileWatch) run(ctx context.Context) {
	defer func() {
		if w.events != nil {
			w.events.Close()
		}
	}()
	w.open()
	w.check()
	poll := time.NewTicker(w.poll)
	defer poll.Stop()
	quiet := time.NewTimer(time.Hour)
	quiet.Stop()
	var since time.Time // of the first change that has not been looked at
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-w.changes():
			if !w.concerns(e) {
				continue
			}
			if since.IsZero() {
				since = time.Now()
			}
			quiet.Reset(min(w.settle, max(0, settleAtMost-time.Since(since))))
		case err := <-w.errors():
			w.report(&SourceError{"certificate files", fmt.Errorf("watching for changes: %w", err), fmt.Sprintf("they are still looked at every %v", w.poll)})
			quiet.Reset(w.settle) // changes may have been lost
		case <-quiet.C:
			since = time.Time{}
			w.check()
		case <-poll.C:
			w.open()
			w.check()
		}
	}
}

// open watches the directories of the files: Kubernetes replaces a symbolic
// link there, and editors replace the file. A directory that was made anew is
// found by the next poll.
func (w *fileWatch) open() {
	if w.events == nil {
		events, err := fsnotify.NewWatcher()
		if err != nil {
			w.report(&SourceError{"certificate files", fmt.Errorf("watching for changes: %w", err), fmt.Sprintf("they are still looked at every %v", w.poll)})
			return
		}
		w.events = events
	}
	for _, name := range w.names() {
		_ = w.events.Add(filepath.Dir(name)) // if it is missing, reading the file says so
	}
}

func (w *fileWatch) names() []string {
	names := append([]string{w.Chain, w.Key}, w.Roots...)
	if w.CRL != "" {
		names = append(names, w.CRL)
	}
	return names
}

func (w *fileWatch) changes() <-chan fsnotify.Event {
	if w.events == nil {
		return nil
	}
	return w.events.Events
}

func (w *fileWatch) errors() <-chan error {
	if w.events == nil {
		return nil
	}
	return w.events.Errors
}

// concerns reports whether an event is about our files, or about the links
// that Kubernetes swaps (..data and the directories it leads to).
func (w *fileWatch) concerns(e fsnotify.Event) bool {
	base := filepath.Base(e.Name)
	return strings.HasPrefix(base, "..") || slices.ContainsFunc(w.names(), func(n string) bool { return filepath.Base(n) == base })
}

// check reads the files and makes them current if they are new and whole.
func (w *fileWatch) check() {
	const tries = 5 // the files may be swapped while they are read
	var err error
	for range tries {
		var p PEM
		if p, err = w.read(); err != nil {
			continue
		}
		sum := fingerprint(p)
		if w.good && sum == w.tried {
			w.checkStale()
			return
		}
		var cr *Credentials
		if cr, err = w.parse(p, w.c.now()); err == nil {
			w.tried, w.good, w.reported, w.stale = sum, true, "", false
			w.c.Set(cr)
			w.checkStale()
			return
		}
		w.tried, w.good = sum, false
		if again, rerr := w.read(); rerr == nil && fingerprint(again) == sum {
			break
		}
	}
	w.report(err)
}

func fingerprint(p PEM) [sha256.Size]byte {
	h := sha256.New()
	for _, b := range [][]byte{p.Chain, p.Key, p.Roots, p.CRL} {
		fmt.Fprintf(h, "%d\n", len(b))
		_, _ = io.Copy(h, bytes.NewReader(b)) // a hash takes everything
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// report tells of a problem, and not again until it is another one.
func (w *fileWatch) report(err error) {
	if s := err.Error(); s != w.reported {
		w.reported = s
		w.c.problem(err)
	}
}

// checkStale tells once of a CRL that should have been replaced.
func (w *fileWatch) checkStale() {
	if t := w.c.Current().crl.stale(w.c.now()); !t.IsZero() && !w.stale {
		w.stale = true
		w.c.problem(&SourceError{"revocation list file " + w.CRL, fmt.Errorf("a newer list was due at %s", stamp(t)), "what it revokes stays revoked; fetch the newer list"})
	}
}
